# METADATA
# title: Reach of the database
# description: Who may reach the database of the shop, whatever policies are written.
# custom:
#   owner: team-data
package shop.database

web := {"namespace": "frontend", "labels": {"app.kubernetes.io/name": "web"}}

postgres := {"namespace": "admin-db", "name": "postgres"}

# METADATA
# scope: rule
# title: the web shop reaches the database
# description: |
#   After this change the database would take connections of the web shop. The shop's orders go through the backend,
#   which checks them; a direct way would pass it by. Narrow the peers of the policy.
# custom:
#   id: SHOP-1
#   severity: critical
#   why: whoever breaks into the web shop must not find the database next door
deny contains {
	"field": rule.field,
	"msg": "with this rule the web shop reaches postgres on 5432",
	"fix": {"summary": "name the backend's pods as peers, nobody else"},
} if {
	input.request.kind.kind == "NetworkPolicy"
	input.object.metadata.namespace == postgres.namespace

	# What the policies say with this change applied: all of them together, not this one alone.
	rule := ringfence.verdict(web, postgres, "TCP", 5432).ingress.allowedBy
	rule.policy == input.object.metadata.name
}
