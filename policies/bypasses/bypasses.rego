# METADATA
# title: Bypasses
# description: Workloads that network policy cannot hold, because they use the node's network or may change it.
# organizations:
# - Ringfence
package ringfence.bypasses

allowed := input.guardrail.bypasses.allow

# METADATA
# scope: rule
# title: pod uses the host network
# description: |
#   With `hostNetwork: true` the pod's processes use the node's addresses and interfaces. NetworkPolicies do not
#   apply to them, and they can listen to and send as the node. Remove the field; expose ports by a Service.
# custom:
#   id: RF401
#   severity: critical
#   section: bypasses
#   why: network policies do not apply to a pod in the node's network
deny contains {
	"id": "RF401",
	"field": path,
	"msg": "`hostNetwork: true` takes the pods out of every network policy",
	"fix": {"summary": "remove `hostNetwork`", "patch": [{"op": "remove", "path": path}]},
} if {
	input.workload.spec.hostNetwork == true
	not "HostNetwork" in allowed
	path = array.concat(input.workload.path, ["spec", "hostNetwork"])
}

# METADATA
# scope: rule
# title: container port on the host
# description: |
#   A `hostPort` opens the port on the node's own address. What comes in there is translated on the node, and many
#   network plugins let it past ingress policies. Remove the `hostPort` and use a Service, or list the port in the
#   guardrail's `bypasses.allowedHostPorts`. Pods with `hostNetwork` are told by RF401 alone.
# custom:
#   id: RF402
#   severity: high
#   section: bypasses
#   why: what enters through a port of the node can get past ingress policies
deny contains {
	"id": "RF402",
	"field": path,
	"msg": sprintf("container `%s` opens port %v of the node", [c.container.name, port.hostPort]),
	"fix": {"summary": "remove `hostPort`; use a Service instead", "patch": [{"op": "remove", "path": path}]},
} if {
	some c in input.workload.containers
	some i, port in c.container.ports
	port.hostPort > 0
	not "HostPort" in allowed
	not port.hostPort in input.guardrail.bypasses.allowedHostPorts
	not input.workload.spec.hostNetwork == true
	path = array.concat(c.path, ["ports", i, "hostPort"])
}

# METADATA
# scope: rule
# title: privileged container
# description: |
#   A privileged container has every capability and every device of the node, so it can change the node's firewall
#   and enter other pods' networks. Set `privileged: false` and add the one capability that is needed.
# custom:
#   id: RF403
#   severity: critical
#   section: bypasses
#   why: a privileged container can undo every network policy of its node
deny contains {
	"id": "RF403",
	"field": path,
	"msg": sprintf("container `%s` is privileged", [c.container.name]),
	"fix": {
		"summary": "set `privileged: false`",
		"patch": [{"op": "replace", "path": path, "value": false}],
	},
} if {
	some c in input.workload.containers
	c.container.securityContext.privileged == true
	not "Privileged" in allowed
	path = array.concat(c.path, ["securityContext", "privileged"])
}

# METADATA
# scope: rule
# title: pod sees the host's processes
# description: |
#   With `hostPID: true` the pod sees and may signal the node's processes, and reaches other pods' networks through
#   `/proc`. Remove the field.
# custom:
#   id: RF404
#   severity: high
#   section: bypasses
#   why: through the node's processes a pod can enter networks that no policy of its own covers
deny contains {
	"id": "RF404",
	"field": path,
	"msg": "`hostPID: true` shows the pods the processes of the node",
	"fix": {"summary": "remove `hostPID`", "patch": [{"op": "remove", "path": path}]},
} if {
	input.workload.spec.hostPID == true
	not "HostPID" in allowed
	path = array.concat(input.workload.path, ["spec", "hostPID"])
}

# METADATA
# scope: rule
# title: pod shares the host's IPC
# description: |
#   With `hostIPC: true` the pod shares memory and queues with the node's processes, a way to talk past any network
#   policy. Remove the field.
# custom:
#   id: RF405
#   severity: high
#   section: bypasses
#   why: shared memory with the node is a way to talk that no network policy sees
deny contains {
	"id": "RF405",
	"field": path,
	"msg": "`hostIPC: true` shares memory with the processes of the node",
	"fix": {"summary": "remove `hostIPC`", "patch": [{"op": "remove", "path": path}]},
} if {
	input.workload.spec.hostIPC == true
	not "HostIPC" in allowed
	path = array.concat(input.workload.path, ["spec", "hostIPC"])
}

# METADATA
# scope: rule
# title: capability that gets past network policy
# description: |
#   The guardrail's `bypasses.capabilities` list capabilities that may not be added, because with them a container
#   can change addresses, routes and firewall rules or forge packets; `ALL` never may. Take the capability out of
#   `securityContext.capabilities.add`. Names count with or without `CAP_`, in any case.
# custom:
#   id: RF406
#   severity: high
#   section: bypasses
#   why: with this capability a container can change or forge what network policy relies on
deny contains {
	"id": "RF406",
	"field": path,
	"msg": sprintf("container `%s` adds the capability `%s`", [c.container.name, capability]),
	"fix": {
		"summary": sprintf("remove `%s` from the added capabilities", [capability]),
		# The list may change before the patch is applied: the test keeps it from removing another one.
		"patch": [{"op": "test", "path": path, "value": capability}, {"op": "remove", "path": path}],
	},
} if {
	some c in input.workload.containers
	some i, capability in c.container.securityContext.capabilities.add
	not "Capability" in allowed
	forbidden(plain(capability))
	path = array.concat(c.path, ["securityContext", "capabilities", "add", i])
}

forbidden(capability) if capability == "ALL"

forbidden(capability) if {
	some listed in input.guardrail.bypasses.capabilities
	plain(listed) == capability
}

plain(capability) := trim_prefix(upper(capability), "CAP_")
