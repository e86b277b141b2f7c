# METADATA
# title: Label conventions
# description: Labels that a workload must or should carry, and the values that they may have.
# organizations:
# - Ringfence
package ringfence.labels

# Where labels are looked for: on the pod template where the kind has one, and on the object itself.
on_object := {
	"path": ["metadata", "labels"],
	"labels": labels_in(input.object),
	"of": input.request.kind.kind,
}

# Labels may be missing, and they may be null.
labels_in(object) := object.metadata.labels if is_object(object.metadata.labels)

labels_in(object) := {} if not is_object(object.metadata.labels)

default on_pods := null

on_pods := on_object if input.workload.path == []

on_pods := {
	"path": array.concat(input.workload.path, ["metadata", "labels"]),
	"labels": labels_in(input.workload),
	"of": "pod template",
} if {
	input.workload.path != []
}

places(_) := [on_object] if not input.workload

places("Pods") := [on_pods] if input.workload

places("Object") := [on_object] if input.workload

places("Both") := [on_pods] if input.workload.path == []

places("Both") := [on_object, on_pods] if input.workload.path != []

# Whether a rule holds for the kind of the object.
holds(rule) if {
	not rule.kinds
	input.workload
}

holds(rule) if input.request.kind.kind in rule.kinds

# Whether the rule's key or one of its aliases is there.
carries(rule, labels) if labels[rule.key]

carries(rule, labels) if {
	some alias in rule.aliases
	labels[alias]
}

# METADATA
# scope: rule
# title: required label is missing
# description: |
#   The guardrail's `labels.rules` demand this label. Policies select pods by labels, so a pod without its label is
#   missed by the policies that were written for it. Add the label to the pod template (for `place: Object` to the
#   object itself); one of the rule's `aliases` serves as well.
# custom:
#   id: RF101
#   severity: medium
#   section: labels
#   why: policies select pods and people find owners by labels; without this one both miss the workload
deny contains object.union(missing(rule, place), {"id": "RF101"}) if {
	some rule in input.guardrail.labels.rules
	rule.presence == "Required"
	holds(rule)
	some place in places(rule.place)
	not carries(rule, place.labels)
}

# METADATA
# scope: rule
# title: recommended label is missing
# description: |
#   The guardrail's `labels.rules` recommend this label. Its absence is told and never refused. Add the label, or
#   take the rule out of the guardrail.
# custom:
#   id: RF103
#   severity: low
#   section: labels
#   why: reports and policies that group workloads by this label leave this one out
warn contains object.union(missing(rule, place), {"id": "RF103"}) if {
	some rule in input.guardrail.labels.rules
	rule.presence == "Recommended"
	holds(rule)
	some place in places(rule.place)
	not carries(rule, place.labels)
}

# METADATA
# scope: rule
# title: label value is not allowed
# description: |
#   The guardrail's `labels.rules` list the values that this label may have, or give a pattern that the whole value
#   must match. Use one of them.
# custom:
#   id: RF102
#   severity: medium
#   section: labels
#   why: policies that are written for the convention do not select a value outside of it
deny contains finding if {
	some rule in input.guardrail.labels.rules
	constrained(rule)
	holds(rule)
	some place in places(rule.place)
	some key in array.concat([rule.key], object.get(rule, "aliases", []))
	value = place.labels[key]
	not accepted(rule, value)
	finding = {
		"id": "RF102",
		"field": array.concat(place.path, [key]),
		"msg": sprintf("label `%s` of the %s has the value `%v`; %s", [key, place.of, value, expected(rule)]),
		"fix": value_fix(rule, place, key, value),
	}
}

constrained(rule) if rule.values

constrained(rule) if rule.pattern

# Values come before a pattern where a rule has both.
accepted(rule, value) if value in rule.values

accepted(rule, value) if {
	not rule.values
	regex.match(concat("", ["^(?:", rule.pattern, ")$"]), value)
}

expected(rule) := sprintf("allowed are `%s`", [concat("`, `", rule.values)]) if rule.values

expected(rule) := sprintf("it must match `%s`", [rule.pattern]) if not rule.values

value_fix(rule, place, key, value) := {
	"summary": sprintf("set the label `%s` to `%s`", [key, best]),
	"patch": [{"op": "replace", "path": array.concat(place.path, [key]), "value": best}],
} if {
	best = likely(rule, value)
} else := {"summary": sprintf("give the label `%s` a value that is allowed", [key])}

# The allowed value that was probably meant.
likely(rule, _) := rule.values[0] if count(rule.values) == 1

likely(rule, value) := near if {
	count(rule.values) > 1
	near = ringfence.near_miss(value, rule.values)
	near != null
}

missing(rule, place) := {
	"field": array.concat(place.path, [rule.key]),
	"msg": sprintf("label `%s`%s is missing from the %s%s", [rule.key, or_aliases(rule), place.of, hint(rule, typo)]),
	"fix": missing_fix(rule, place, typo),
} if {
	typo = ringfence.near_miss(rule.key, object.keys(place.labels))
}

or_aliases(rule) := sprintf(" (or `%s`)", [concat("`, `", rule.aliases)]) if rule.aliases

or_aliases(rule) := "" if not rule.aliases

hint(_, typo) := "" if typo == null

hint(rule, typo) := sprintf("; did you mean `%s` for `%s`?", [rule.key, typo]) if typo != null

missing_fix(rule, place, typo) := {
	"summary": sprintf("add the label `%s: %s` to the %s", [rule.key, value, place.of]),
	"patch": [{"op": "add", "path": array.concat(place.path, [rule.key]), "value": value}],
} if {
	value = known(rule, place, typo)
} else := {"summary": sprintf("add the label `%s` to the %s", [rule.key, place.of])}

# The value that the label must have, where that is no guess: the only allowed one, or that of the misspelt label.
known(rule, _, _) := rule.values[0] if count(rule.values) == 1

known(rule, place, typo) := value if {
	typo != null
	not count(rule.values) == 1
	value = place.labels[typo]
	unobjectionable(rule, value)
}

unobjectionable(rule, _) if not constrained(rule)

unobjectionable(rule, value) if accepted(rule, value)

# METADATA
# scope: rule
# title: label is almost one that a policy selects by
# description: |
#   A policy of the namespace selects pods by a label whose key or value is almost the one that these pods carry. If
#   it is a typo, the policy misses them. If it is meant, rename one of the two, or set `labels.nearMisses: false` in
#   the guardrail.
# custom:
#   id: RF104
#   severity: medium
#   section: labels
#   why: the policy does not select these pods, so neither what it isolates nor what it allows holds for them
warn contains finding if {
	input.guardrail.labels.nearMisses
	input.workload
	some key, value in on_pods.labels
	meant = nearly(key, value)
	finding = {
		"id": "RF104",
		"field": array.concat(on_pods.path, [key]),
		"msg": sprintf("label `%s: %s` is almost `%s: %s`, which policies of the namespace select by", [
			key,
			value,
			meant.key,
			meant.value,
		]),
		"fix": {"summary": sprintf("if it is a typo, write `%s: %s`", [meant.key, meant.value])},
	}
}

# The key is almost one that is selected by, which these pods do not carry.
nearly(key, value) := {"key": near, "value": value} if {
	not input.namespace.selectedLabels[key]
	near = ringfence.near_miss(key, object.keys(input.namespace.selectedLabels))
	near != null
	not on_pods.labels[near]
}

# The key is one that is selected by, and the value almost is.
nearly(key, value) := {"key": key, "value": near} if {
	values = input.namespace.selectedLabels[key]
	not value in values
	near = ringfence.near_miss(value, values)
	near != null
}
