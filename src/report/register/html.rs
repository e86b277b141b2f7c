//! The register as one page without anything from elsewhere, to be read on a screen and to be printed.

use std::fmt::{self, Write as _};

use crate::guard::register::{ClusterEntry, Covered, Entry, Exempted, Register, Review};

const STYLE: &str = "\
:root{color-scheme:light;--line:#d0d7de;--soft:#57606a;--bad:#b42318;--bad-soft:#fef3f2;--good:#067647;--blue:#1f4e79}\
*{box-sizing:border-box}\
body{font:15px/1.45 system-ui,sans-serif;color:#1f2328;margin:0 auto;max-width:68rem;padding:2rem 1.25rem}\
h1{margin:0 0 .25rem;font-size:1.7rem}h2{margin:2.2rem 0 .6rem;font-size:1.25rem;border-bottom:2px solid var(--blue);padding-bottom:.2rem}\
h3{margin:0;font-size:1.05rem;overflow-wrap:anywhere}\
.soft{color:var(--soft)}.small{font-size:.86rem}\
.figures{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}\
.figure{border:1px solid var(--line);border-radius:.5rem;padding:.5rem .9rem;min-width:8.5rem}\
.figure b{display:block;font-size:1.5rem;line-height:1.2}.figure.bad{border-color:var(--bad);background:var(--bad-soft)}.figure.bad b{color:var(--bad)}\
nav{margin:.5rem 0}nav a{margin-right:.9rem;color:var(--blue)}\
.policy{border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem;margin:.7rem 0;break-inside:avoid}\
.head{display:flex;flex-wrap:wrap;gap:.5rem;align-items:baseline}\
.tag{font-size:.78rem;border-radius:1rem;padding:.05rem .6rem;border:1px solid var(--line);color:var(--soft)}\
.tag.bad{border-color:var(--bad);color:var(--bad);background:var(--bad-soft);font-weight:600}\
dl{display:grid;grid-template-columns:9rem 1fr;gap:.2rem .9rem;margin:.6rem 0 0}dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}\
ul{margin:0;padding-left:1.1rem}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
th{color:var(--soft);font-weight:600}.number{text-align:right;font-variant-numeric:tabular-nums}.whole{white-space:nowrap}.bad-text{color:var(--bad);font-weight:600}\
@media(max-width:38rem){dl{grid-template-columns:1fr}dt{margin-top:.4rem}}\
@media print{body{max-width:none;padding:0;font-size:11px}nav{display:none}.figure,.tag{-webkit-print-color-adjust:exact;print-color-adjust:exact}}";

/// A text within a page: no letter of it is markup.
struct Plain<'t>(&'t str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The whole page.
pub fn page(register: &Register) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">\n\
         <title>Network policies</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>Network policies</h1>\n<p class=\"soft\">As of {}</p>\n",
        register.at
    );
    figures(&mut page, register);
    let mut namespaces: Vec<&str> = register
        .policies
        .iter()
        .map(|entry| entry.namespace.as_str())
        .collect();
    namespaces.dedup();
    page.push_str("<nav>");
    for namespace in &namespaces {
        let namespace = Plain(namespace);
        let _ = write!(page, "<a href=\"#{namespace}\">{namespace}</a>");
    }
    page.push_str("</nav>\n");
    coverage(&mut page, &register.namespaces);
    exemptions(&mut page, &register.exemptions);
    if !register.cluster.is_empty() {
        page.push_str("<h2>The whole cluster</h2>\n");
    }
    for entry in &register.cluster {
        cluster(&mut page, entry);
    }
    for namespace in namespaces {
        let plain = Plain(namespace);
        let _ = writeln!(page, "<h2 id=\"{plain}\">Namespace {plain}</h2>");
        for entry in register
            .policies
            .iter()
            .filter(|entry| entry.namespace == namespace)
        {
            policy(&mut page, entry);
        }
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn figures(page: &mut String, register: &Register) {
    let open = register
        .namespaces
        .iter()
        .map(|one| one.open_to_ingress.max(one.open_to_egress));
    let ended = register
        .exemptions
        .iter()
        .filter(|one| one.has_ended)
        .count();
    let figures = [
        (
            "policies",
            register
                .policies
                .len()
                .saturating_add(register.cluster.len()),
            false,
        ),
        ("without owner or purpose", register.undocumented(), true),
        ("review overdue", register.overdue(), true),
        (
            "workloads open in a direction",
            open.fold(0, usize::saturating_add),
            true,
        ),
        ("exemptions", register.exemptions.len(), false),
        ("exemptions that have ended", ended, true),
    ];
    page.push_str("<div class=\"figures\">");
    for (what, count, is_bad) in figures {
        let class = if is_bad && count > 0 {
            "figure bad"
        } else {
            "figure"
        };
        let _ = write!(page, "<div class=\"{class}\"><b>{count}</b>{what}</div>");
    }
    page.push_str("</div>\n");
}

/// What every policy says of itself; its fields are left open.
fn head(
    page: &mut String,
    name: &str,
    controls: &[String],
    review: &Review,
    [owner, purpose]: [Option<&str>; 2],
) {
    let name = Plain(name);
    let _ = write!(
        page,
        "<section class=\"policy\"><div class=\"head\"><h3>{name}</h3>"
    );
    for control in controls {
        let _ = write!(page, "<span class=\"tag\">{}</span>", Plain(control));
    }
    page.push_str(match review {
        Review::Unsaid | Review::Due(_) => "",
        Review::Overdue(_) => "<span class=\"tag bad\">review overdue</span>",
        Review::Unreadable(_) => "<span class=\"tag bad\">day of review is none</span>",
    });
    page.push_str("</div><dl>");
    said(page, "owner", owner);
    said(page, "purpose", purpose);
    match review {
        Review::Unsaid => {}
        Review::Due(day) => field(page, "review by", &Plain(day).to_string()),
        Review::Overdue(text) | Review::Unreadable(text) => {
            let text = format!("<span class=\"bad-text\">{}</span>", Plain(text));
            field(page, "review by", &text);
        }
    }
}

fn cluster(page: &mut String, entry: &ClusterEntry) {
    let said = [entry.owner.as_deref(), entry.purpose.as_deref()];
    let name = super::cluster_name(entry);
    head(page, &name, &entry.controls, &entry.review, said);
    field(page, "tier, priority", &Plain(&entry.place).to_string());
    field(
        page,
        "rules for",
        &Plain(&super::rules_for(entry)).to_string(),
    );
    list(page, "rules", entry.rules.iter().cloned());
    list(page, "overlaps", super::cluster_overlaps(entry).into_iter());
    source(page, entry.location.as_deref(), entry.digest.as_deref());
    page.push_str("</dl></section>\n");
}

fn policy(page: &mut String, entry: &Entry) {
    let said = [entry.owner.as_deref(), entry.purpose.as_deref()];
    head(page, &entry.name, &entry.controls, &entry.review, said);
    field(page, "selects", &Plain(&super::selects(entry)).to_string());
    if entry.opens.is_empty() {
        field(page, "opens", &Plain(&super::nothing(entry)).to_string());
    } else {
        list(page, "opens", entry.opens.iter().map(super::rule));
    }
    list(page, "overlaps", super::overlaps(entry).into_iter());
    list(page, "exemptions", entry.exemptions.iter().cloned());
    source(page, entry.location.as_deref(), entry.digest.as_deref());
    page.push_str("</dl></section>\n");
}

/// Where a policy was read, and the digest of its text.
fn source(page: &mut String, location: Option<&str>, digest: Option<&str>) {
    let small = |text: &str| format!("<span class=\"small soft\">{}</span>", Plain(text));
    if let Some(location) = location {
        field(page, "stands in", &small(location));
    }
    if let Some(digest) = digest {
        field(page, "digest", &small(digest));
    }
}

/// A field whose value is markup already.
fn field(page: &mut String, name: &str, value: &str) {
    let _ = write!(page, "<dt>{name}</dt><dd>{value}</dd>");
}

fn said(page: &mut String, name: &str, text: Option<&str>) {
    match text {
        Some(text) => field(page, name, &Plain(text).to_string()),
        None => field(page, name, "<span class=\"bad-text\">none</span>"),
    }
}

fn list(page: &mut String, name: &str, texts: impl Iterator<Item = String>) {
    let items: String = texts.fold(String::new(), |mut items, text| {
        let _ = write!(items, "<li>{}</li>", Plain(&text));
        items
    });
    if !items.is_empty() {
        field(page, name, &format!("<ul>{items}</ul>"));
    }
}

fn coverage(page: &mut String, namespaces: &[Covered]) {
    page.push_str("<h2>Coverage</h2>\n<table><tr><th>namespace</th><th class=\"number\">workloads</th><th class=\"number\">open to ingress</th><th class=\"number\">open to egress</th><th>default-deny</th></tr>");
    for covered in namespaces {
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"number\">{}</td>",
            Plain(&covered.namespace),
            covered.workloads
        );
        for open in [covered.open_to_ingress, covered.open_to_egress] {
            let class = if open > 0 {
                "number bad-text"
            } else {
                "number"
            };
            let _ = write!(page, "<td class=\"{class}\">{open}</td>");
        }
        let (class, words) = match (covered.ingress.is_empty(), covered.egress.is_empty()) {
            (false, false) => ("", "both directions"),
            (false, true) => ("bad-text", "ingress only"),
            (true, false) => ("bad-text", "egress only"),
            (true, true) => ("bad-text", "none"),
        };
        let _ = write!(page, "<td class=\"{class}\">{words}</td></tr>");
    }
    page.push_str("</table>\n");
}

fn exemptions(page: &mut String, exemptions: &[Exempted]) {
    if exemptions.is_empty() {
        return;
    }
    page.push_str("<h2>Exemptions</h2>\n<table><tr><th>exemption</th><th>checks</th><th>objects</th><th>reason</th><th>owner</th><th>expires</th></tr>");
    for exemption in exemptions {
        let class = if exemption.has_ended {
            "whole bad-text"
        } else {
            "whole"
        };
        let ended = if exemption.has_ended { " ended" } else { "" };
        let _ = write!(
            page,
            "<tr><td>{}/{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{}{ended}</td></tr>",
            Plain(&exemption.namespace),
            Plain(&exemption.name),
            Plain(&exemption.checks.join(", ")),
            Plain(&exemption.objects.join(", ")),
            Plain(&exemption.reason),
            Plain(&exemption.owner),
            exemption.expires
        );
    }
    page.push_str("</table>\n");
}
