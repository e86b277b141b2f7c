//! Whether rules of others decide about packets, too: what they drop no policy lets pass.

use super::{Check, Level, Node};
use crate::guard::enforcement::chains;

const ID: &str = "other-rules";

/// Says which do.
pub(super) fn rules(seen: &Node) -> Vec<Check> {
    let mut checks: Vec<Check> = [
        enforcing(seen),
        firewall(seen),
        dropping(seen),
        legacy(seen),
    ]
    .into_iter()
    .flatten()
    .collect();
    if checks.is_empty() {
        checks.push(Check::ok(
            ID,
            "no known firewall is here, and no chain of others that drops by its policy",
        ));
    }
    checks
}

fn enforcing(seen: &Node) -> Option<Check> {
    let (plugin, chain) = chains::enforcing(&seen.chains)?;
    let name = plugin.name;
    Some(if seen.has_own_table {
        Check::new(
            Level::Warning,
            ID,
            format!("{name} has rules here (the chain {}), and so has Ringfence's agent: what either denies is denied", chain.path()),
        )
        .advise("have one of them enforce, and take the other's rules away")
    } else {
        Check::ok(
            ID,
            format!(
                "{name} has rules for policies here (the chain {})",
                chain.path()
            ),
        )
    })
}

fn firewall(seen: &Node) -> Option<Check> {
    let name = chains::firewall(&seen.chains)?;
    let says =
        format!("{name} has rules here, and where it is on they decide about packets of pods, too");
    let advice = format!("have {name} let pass what is forwarded from and to the blocks of pods");
    Some(Check::new(Level::Warning, ID, says).advise(advice))
}

fn dropping(seen: &Node) -> Option<Check> {
    let paths: Vec<String> = chains::dropping(&seen.chains)
        .map(chains::Chain::path)
        .collect();
    let says = match paths.as_slice() {
        [] => return None,
        [one] => format!("{one} drops what none of its rules lets pass, whatever policies say"),
        many => format!(
            "{} drop what none of their rules lets pass, whatever policies say",
            many.join(", ")
        ),
    };
    let advice = "see whether they let pass what pods send (nft list chain, or iptables -S FORWARD); --probe proves it";
    Some(Check::new(Level::Warning, ID, says).advise(advice))
}

fn legacy(seen: &Node) -> Option<Check> {
    let says = "there is a table filter of iptables-legacy, whose rules are not looked at here";
    let advice = "iptables-legacy -S FORWARD says whether they drop what policies let pass";
    let check = Check::new(Level::Warning, ID, says).advise(advice);
    seen.has_legacy_filter.then_some(check)
}
