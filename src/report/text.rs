//! For people at a terminal: what is wrong, the line it stands in, why it matters and what to do.
//!
//! What comes from manifests is untrusted: control characters, which could paint over the rest of the terminal,
//! are written as escapes.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use crate::guard::mode::Mode;

use super::{Checked, Located, Location, Outcome, Place, Problem, Report, counted, cuts, yaml};

/// How the text may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub colour: Colour,
    /// How many columns the terminal has, if it is one.
    pub width: Option<usize>,
    /// Whether what is let off or recorded only is told as well.
    pub detail: Detail,
}

/// With or without colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Without.
    #[default]
    Never,
    /// With the escape codes of a terminal.
    Always,
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// What is not let off by an exemption.
    #[default]
    Usual,
    /// Everything.
    All,
}

/// The whole report.
pub fn render(report: &Report, style: &Style) -> String {
    let renderer = renderer(style);
    let mut text = String::new();
    let mut proposed = Vec::new();
    for problem in &report.problems {
        push(&mut text, &self::problem(&renderer, problem));
    }
    for (checked, located) in report.findings() {
        if style.detail == Detail::All || located.outcome() != Outcome::Exempted {
            push(&mut text, &finding(&renderer, checked, located));
            let fix = located.judged.finding.fix.as_ref();
            // What one manifest mends for many objects is shown once.
            if let Some(manifest) = fix.and_then(|fix| fix.manifest.as_ref())
                && !proposed.contains(&manifest)
            {
                let yaml = printable_lines(&yaml::manifest(manifest, 2));
                push(&mut text, &format!("to apply, for instance:\n\n{yaml}"));
                proposed.push(manifest);
            }
        }
    }
    if let Some(observed) = &report.cuts {
        push(&mut text, &cuts::text(observed));
    }
    text.push_str(&summary(report));
    text
}

/// The last lines: how much there is of everything.
pub fn summary(report: &Report) -> String {
    let summary = report.summary();
    let mut text = String::new();
    let mut parts: Vec<String> = Vec::new();
    for (count, outcome) in [
        (summary.refused, "refused"),
        (summary.warned, "warned of"),
        (summary.recorded, "recorded"),
        (summary.exempted, "exempted"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {outcome}"));
        }
    }
    if summary.fatal_problems > 0 {
        parts.push(format!("{} could not be read", summary.fatal_problems));
    }
    let severities: Vec<String> = summary
        .by_severity
        .counts()
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(severity, count)| format!("{count} {severity}"))
        .collect();
    let findings = match summary.findings() {
        0 => "no findings".to_owned(),
        1 => "1 finding".to_owned(),
        count => format!("{count} findings"),
    };
    text.push_str(&findings);
    if !severities.is_empty() {
        let _ = write!(text, " ({})", severities.join(", "));
    }
    if !parts.is_empty() {
        let _ = write!(text, ": {}", parts.join(", "));
    }
    let objects = counted(summary.objects as u64, "object");
    let place = match report.place {
        Place::Files => counted(summary.files as u64, "file"),
        Place::Cluster => "the cluster".to_owned(),
    };
    let _ = write!(text, "\nchecked {objects} in {place}");
    if let Some(elapsed) = report.elapsed {
        let _ = write!(text, " in {:.2} s", elapsed.as_secs_f64());
    }
    text.push('\n');
    text
}

/// A text from a manifest with its control characters as escapes.
pub fn printable(text: &str) -> String {
    let is_plain = |character: char| !character.is_control() && !is_invisible(character);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    text.chars()
        .fold(String::new(), |mut printable, character| {
            if is_plain(character) {
                printable.push(character);
            } else {
                printable.extend(character.escape_unicode());
            }
            printable
        })
}

/// The same for several lines.
fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n")
}

/// Marks that turn the direction of text or take no room: they let a line read as another one.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn renderer(style: &Style) -> Renderer {
    let renderer = match style.colour {
        Colour::Never => Renderer::plain(),
        Colour::Always => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    match style.width {
        Some(width) => renderer.term_width(width),
        None => renderer,
    }
}

fn push(text: &mut String, block: &str) {
    text.push_str(block.trim_end());
    text.push_str("\n\n");
}

fn finding(renderer: &Renderer, checked: &Checked, located: &Located) -> String {
    let finding = &located.judged.finding;
    let level = match located.outcome() {
        Outcome::Refused => Level::ERROR,
        Outcome::Warned => Level::WARNING,
        Outcome::Recorded | Outcome::Exempted => Level::NOTE,
    };
    let field = printable(&finding.field.to_string());
    let mut group = level
        .primary_title(printable(&finding.message))
        .id(printable(finding.id.as_str()))
        .element(place(&located.location, &field));
    let object = printable(&checked.object.to_string());
    let mut lines = vec![("in", format!("{object}, {}", consequence(located)))];
    lines.push(("why", printable(&finding.why)));
    if let Some(fix) = &finding.fix {
        lines.push(("fix", printable(&fix.summary)));
    }
    for (name, line) in lines.iter().filter(|(_, line)| !line.is_empty()) {
        group = group.element(Level::NOTE.with_name(*name).message(line.as_str()));
    }
    renderer.render(&[group])
}

/// What follows from a finding, and by whose word.
fn consequence(located: &Located) -> String {
    let judged = &located.judged;
    let severity = judged.finding.severity;
    if let Some(exemption) = &judged.exemption {
        return format!(
            "{severity}, let off by the exemption {}",
            printable(exemption)
        );
    }
    let done = match judged.mode {
        Mode::Enforce => "refused",
        Mode::Warn => "warned of",
        Mode::Audit => "recorded",
    };
    if judged.guardrails.is_empty() {
        return format!("{severity}, {done}");
    }
    let names: Vec<String> = judged
        .guardrails
        .iter()
        .map(|name| format!("`{}`", printable(name)))
        .collect();
    format!("{severity}, {done} by the guardrail {}", names.join(", "))
}

fn problem(renderer: &Renderer, problem: &Problem) -> String {
    let level = if problem.fatal {
        Level::ERROR
    } else {
        Level::WARNING
    };
    let mut group = level
        .primary_title(printable(&problem.message))
        .id(printable(problem.id.as_str()))
        .element(place(&problem.location, ""));
    let help = problem.help.as_deref().map(printable);
    if let Some(help) = &help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// The line with the place marked, or only where it is.
fn place<'a>(location: &Location, label: &str) -> Element<'a> {
    let path = printable(&location.file);
    match &location.excerpt {
        Some(excerpt) => {
            let annotation = AnnotationKind::Primary.span(excerpt.start..excerpt.end);
            let annotation = if label.is_empty() {
                annotation
            } else {
                annotation.label(label.to_owned())
            };
            Snippet::source(excerpt.text.clone())
                .path(path)
                .line_start(location.line)
                .annotation(annotation)
                .into()
        }
        None if location.line == 0 => {
            let at = path.trim_matches(['<', '>']);
            let separator = if label.is_empty() { "" } else { ": " };
            Origin::path(format!("{at}{separator}{label}")).into()
        }
        None => Origin::path(path)
            .line(location.line)
            .char_column(location.column)
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing;

    #[test]
    fn every_finding_has_its_line_its_reason_and_what_to_do() {
        insta::assert_snapshot!(render(&testing::report(), &Style::default()));
    }

    #[test]
    fn what_is_let_off_is_told_when_everything_is_asked_for() {
        let style = Style {
            detail: Detail::All,
            ..Style::default()
        };
        let text = render(&testing::report(), &style);
        assert!(
            text.contains("critical, let off by the exemption shop/node-exporter"),
            "{text}"
        );
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        let plain = render(&testing::report(), &Style::default());
        assert!(!plain.contains('\u{1b}'));
        let coloured = render(
            &testing::report(),
            &Style {
                colour: Colour::Always,
                ..Style::default()
            },
        );
        assert!(coloured.contains("\u{1b}["));
        // Only colours: nothing from a manifest moves the cursor.
        assert!(coloured.split('\u{1b}').skip(1).all(|part| {
            part.trim_start_matches(|c: char| c == '[' || c == ';' || c.is_ascii_digit())
                .starts_with('m')
        }));
    }

    #[test]
    fn nothing_found_is_told_in_two_lines() {
        let report = Report {
            files: 1,
            ..Report::default()
        };
        assert_eq!(
            render(&report, &Style::default()),
            "no findings\nchecked 0 objects in 1 file\n"
        );
    }

    #[test]
    fn marks_that_hide_text_are_written_out() {
        assert_eq!(
            printable("a\u{202e}b\u{7}\u{200b}\tä"),
            r"a\u{202e}b\u{7}\u{200b}\u{9}ä"
        );
    }
}
