# METADATA
# title: Documentation of policies
# description: What a NetworkPolicy or ClusterNetworkPolicy must say about itself, so that someone can answer for it and dares to change it.
# organizations:
# - Ringfence
package ringfence.documentation

section := input.guardrail.documentation

annotations := object.get(input.object, ["metadata", "annotations"], {})

applies if {
	input.request.kind.kind == "NetworkPolicy"
	input.request.kind.group == "networking.k8s.io"
}

applies if {
	input.request.kind.kind in {"ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"}
	input.request.kind.group == "policy.networking.k8s.io"
}

# METADATA
# scope: rule
# title: policy has no owner
# description: |
#   The guardrail's `documentation.owner` asks for an annotation that names who answers for the policy, and may give
#   a pattern for it. Add the annotation; a team outlives a person.
# custom:
#   id: RF501
#   severity: low
#   section: documentation
#   why: when the policy breaks something or is in the way, somebody has to be asked
deny contains unsaid_owner if unsaid(section.owner, "Required")

warn contains unsaid_owner if unsaid(section.owner, "Recommended")

deny contains unfit("RF501", section.owner) if misfit(section.owner)

unsaid_owner := missing("RF501", section.owner, "nobody is named who answers for the policy", "team-payments")

# METADATA
# scope: rule
# title: policy has no purpose
# description: |
#   The guardrail's `documentation.purpose` asks for an annotation that says what the policy is for, and may give a
#   pattern for it, such as a ticket number. Add the annotation.
# custom:
#   id: RF502
#   severity: low
#   section: documentation
#   why: a rule whose purpose nobody knows is never removed
deny contains unsaid_purpose if unsaid(section.purpose, "Required")

warn contains unsaid_purpose if unsaid(section.purpose, "Recommended")

deny contains unfit("RF502", section.purpose) if misfit(section.purpose)

unsaid_purpose := missing("RF502", section.purpose, "the policy does not say what it is for", "the shop pays by card")

# METADATA
# scope: rule
# title: policy has no day of review
# description: |
#   The guardrail's `documentation.reviewBy` asks for an annotation with the day (YYYY-MM-DD) by which someone looks
#   at the policy again. Add the annotation.
# custom:
#   id: RF503
#   severity: low
#   section: documentation
#   why: what is never looked at again stays open for good
deny contains unsaid_review if unsaid(section.reviewBy, "Required")

warn contains unsaid_review if unsaid(section.reviewBy, "Recommended")

unsaid_review := missing("RF503", section.reviewBy, "the policy has no day of review", "2030-06-30")

# METADATA
# scope: rule
# title: day of review has passed or is none
# description: |
#   The annotation of `documentation.reviewBy` is not a day (YYYY-MM-DD, RFC 3339), or that day has passed. Look at
#   the policy: is it still needed, and as wide as this? Then set a new day. The day itself has not passed yet.
# custom:
#   id: RF504
#   severity: medium
#   section: documentation
#   why: the policy was to be looked at by now, and may be open for nothing
deny contains finding if {
	applies
	said(section.reviewBy)
	some problem in review_problems
	finding = {
		"id": "RF504",
		"field": path(section.reviewBy),
		"msg": sprintf("annotation `%s: %s`%s", [section.reviewBy.annotation, review_by, problem]),
		"fix": {"summary": sprintf("review the policy and set `%s` to a day to come", [section.reviewBy.annotation])},
	}
}

review_by := annotations[section.reviewBy.annotation]

# A date-time serves as well: its day counts.
review_day := substring(review_by, 0, 10) if {
	regex.match(`^\d{4}-\d{2}-\d{2}([Tt].*)?$`, review_by)
	time.parse_rfc3339_ns(concat("", [substring(review_by, 0, 10), "T00:00:00Z"]))
}

review_problems contains " is not a day such as `2030-06-30`" if not review_day

review_problems contains " is a day that has passed" if review_day < substring(input.now, 0, 10)

review_problems contains sprintf(" does not match `%s`", [section.reviewBy.pattern]) if {
	review_day
	misfit(section.reviewBy)
}

# Whether an annotation is there and says something.
said(rule) if trim_space(annotations[rule.annotation]) != ""

unsaid(rule, presence) if {
	rule.presence == presence
	applies
	not said(rule)
}

misfit(rule) if {
	rule.pattern
	applies
	said(rule)
	not regex.match(concat("", ["^(?:", rule.pattern, ")$"]), annotations[rule.annotation])
}

path(rule) := ["metadata", "annotations", rule.annotation]

# What to write is for people to say, so there is no patch.
missing(id, rule, msg, example) := {
	"id": id,
	"field": path(rule),
	"msg": sprintf("%s: annotation `%s` is missing or empty", [msg, rule.annotation]),
	"fix": {"summary": sprintf("add the annotation `%s`, such as `%s`", [rule.annotation, example])},
}

unfit(id, rule) := {
	"id": id,
	"field": path(rule),
	"msg": sprintf("annotation `%s: %s` does not match `%s`", [
		rule.annotation,
		annotations[rule.annotation],
		rule.pattern,
	]),
	"fix": {"summary": sprintf("write the annotation `%s` as `%s` asks", [rule.annotation, rule.pattern])},
}
