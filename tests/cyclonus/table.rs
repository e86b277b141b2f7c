//! The tables that the tool prints: cells between `|`, and lines of `+---+` above and below each row.
//!
//! A cell may be printed on several lines. Where a column is open (`+     +`) below a row, the next row has the
//! same text there.

use std::net::IpAddr;

use ringfence::netpol::{Port, Protocol};

/// One pod of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodRow {
    pub(crate) namespace: String,
    pub(crate) namespace_labels: Vec<(String, String)>,
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) ip: IpAddr,
    pub(crate) ports: Vec<NamedPort>,
}

/// One port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPort {
    pub(crate) name: String,
    pub(crate) port: Port,
    pub(crate) protocol: Protocol,
}

/// Which pod may connect to which: the first index is the one who connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TruthTable {
    /// `namespace/name`, of rows and columns alike.
    pub(crate) pods: Vec<String>,
    /// What each sign of a cell stands for; none where the step has one port only.
    pub(crate) ports: Vec<(Protocol, Port)>,
    /// For each pair of pods, whether each port is allowed.
    pub(crate) cells: Vec<Vec<Vec<bool>>>,
}

/// The rows of a table, each cell with single spaces between its words.
fn rows(text: &str) -> Vec<Vec<String>> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row: Vec<String> = Vec::new();
    let mut same: Vec<bool> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line = line.trim_end();
        if let Some(border) = between(line, '+') {
            if !row.is_empty() {
                for (column, cell) in row.iter_mut().enumerate() {
                    if same[column] {
                        assert!(cell.is_empty(), "text in an open column: {cell}");
                        cell.clone_from(&rows.last().expect("a row above")[column]);
                    }
                }
                rows.push(std::mem::take(&mut row));
            }
            same = border.map(|part| part.trim().is_empty()).collect();
        } else {
            let cells: Vec<&str> = between(line, '|').expect("a line of a table").collect();
            assert_eq!(cells.len(), same.len(), "columns of {line}");
            row.resize(cells.len(), String::new());
            for (joined, cell) in row.iter_mut().zip(cells) {
                for word in cell.split_whitespace() {
                    if !joined.is_empty() {
                        joined.push(' ');
                    }
                    joined.push_str(word);
                }
            }
        }
    }
    assert!(row.is_empty(), "a table without an end:\n{text}");
    rows
}

fn between(line: &str, edge: char) -> Option<std::str::Split<'_, char>> {
    let inner = line.strip_prefix(edge)?.strip_suffix(edge)?;
    Some(inner.split(edge))
}

/// The pods of a cluster.
pub(crate) fn resources(text: &str) -> Vec<PodRow> {
    let rows = rows(text);
    let [head, rows @ ..] = rows.as_slice() else {
        panic!("no table of resources:\n{text}");
    };
    assert_eq!(
        *head,
        [
            "NAMESPACE",
            "NS LABELS",
            "POD",
            "POD LABELS",
            "IPS",
            "CONTAINERS/PORTS"
        ],
        "columns of the resources"
    );
    let mut pods: Vec<PodRow> = Vec::new();
    for row in rows {
        let [namespace, namespace_labels, name, labels, ips, port] = row.as_slice() else {
            panic!("not six columns: {row:?}");
        };
        let port = container_port(port);
        match pods.last_mut() {
            Some(pod) if pod.namespace == *namespace && pod.name == *name => pod.ports.push(port),
            _ => pods.push(PodRow {
                namespace: namespace.clone(),
                namespace_labels: self::labels(namespace_labels),
                name: name.clone(),
                labels: self::labels(labels),
                ip: labels_value(&self::labels(ips), "pod")
                    .parse()
                    .expect("the address of a pod"),
                ports: vec![port],
            }),
        }
    }
    pods
}

/// `key: value` and so on, from words.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match (word.strip_suffix(':'), labels.last_mut()) {
            (Some(key), _) => labels.push((key.to_owned(), String::new())),
            (None, Some((_, value))) if value.is_empty() => word.clone_into(value),
            (None, _) => panic!("not keys and values: {text}"),
        }
    }
    labels
}

fn labels_value<'l>(labels: &'l [(String, String)], key: &str) -> &'l str {
    let found = labels.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| &**value).expect("a key")
}

/// `cont-80-tcp, port serve-80-tcp: 80 on TCP`.
fn container_port(text: &str) -> NamedPort {
    let words: Vec<&str> = text.split(' ').collect();
    let [_, "port", name, port, "on", protocol] = words.as_slice() else {
        panic!("not a port of a container: {text}");
    };
    NamedPort {
        name: name.strip_suffix(':').expect("a name").to_owned(),
        port: self::port(port),
        protocol: self::protocol(protocol),
    }
}

pub(crate) fn port(text: &str) -> Port {
    let port = text.parse().ok().and_then(Port::new);
    port.unwrap_or_else(|| panic!("not a port: {text}"))
}

pub(crate) fn protocol(text: &str) -> Protocol {
    Protocol::from_api(text).unwrap_or_else(|| panic!("not a protocol: {text}"))
}

/// A table of who may connect to whom.
pub(crate) fn truth(text: &str) -> TruthTable {
    // Where cells are single signs, the rows have no lines between them.
    let mut separated = String::new();
    let border = text.lines().next().expect("a table");
    for line in text.lines() {
        separated.push_str(line);
        separated.push('\n');
        if is_row(line) {
            separated.push_str(border);
            separated.push('\n');
        }
    }
    let rows = rows(&separated);
    let [head, rows @ ..] = rows.as_slice() else {
        panic!("no table:\n{text}");
    };
    let ports = head[0].split(' ').filter(|key| !key.is_empty());
    let ports: Vec<_> = ports
        .map(|key| {
            let (protocol, port) = key.split_once('/').expect("protocol/port");
            (self::protocol(protocol), self::port(port))
        })
        .collect();
    let pods: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    let columns: Vec<String> = head[1..].iter().map(|cell| cell.to_lowercase()).collect();
    assert_eq!(pods, columns, "rows and columns of\n{text}");
    let width = ports.len().max(1);
    let signs = |cell: &String| {
        let signs = cell.split(' ').map(|sign| match sign {
            "." => true,
            "X" => false,
            other => panic!("{other} is neither allowed nor blocked, in\n{text}"),
        });
        let signs: Vec<bool> = signs.collect();
        assert_eq!(signs.len(), width, "ports of {cell} in\n{text}");
        signs
    };
    let cells = rows
        .iter()
        .map(|row| row[1..].iter().map(signs).collect())
        .collect();
    TruthTable { pods, ports, cells }
}

/// Whether a line is a row of pods, whose names are in lower case; those of the head are not.
fn is_row(line: &str) -> bool {
    let first = line.trim_start_matches(['|', ' ']);
    first.starts_with(|letter: char| letter.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_column_repeats_the_cell_above() {
        let text = "\
+-----+------+
| ONE | TWO  |
+-----+------+
| a   | b: 1 |
|     | c: 2 |
+     +------+
|     | d    |
+-----+------+
|     | e    |
+-----+------+
";
        let expected = [["ONE", "TWO"], ["a", "b: 1 c: 2"], ["a", "d"], ["", "e"]];
        assert_eq!(rows(text), expected);
    }

    #[test]
    fn pods_have_labels_an_address_and_ports() {
        let text = "\
+-----------+-----------+-----+------------+-------------------+-------------------+
| NAMESPACE | NS LABELS | POD | POD LABELS |        IPS        | CONTAINERS/PORTS  |
+-----------+-----------+-----+------------+-------------------+-------------------+
| one       | k: v      | web | app: web   | pod: 10.0.0.1     | main, port        |
|           | l: w      |     |            | service:          | http: 80 on TCP   |
+           +           +     +            +                   +-------------------+
|           |           |     |            |                   | side, port        |
|           |           |     |            |                   | dns: 53 on UDP    |
+           +           +-----+------------+-------------------+-------------------+
|           |           | db  |            | pod: 10.0.0.2     | main, port        |
|           |           |     |            | service:          | sql: 5432 on TCP  |
+-----------+-----------+-----+------------+-------------------+-------------------+
";
        let pods = resources(text);
        let [web, db] = pods.as_slice() else {
            panic!("not two pods: {pods:?}");
        };
        assert_eq!((&*web.name, &*db.name), ("web", "db"));
        assert_eq!(db.namespace, "one");
        assert_eq!(db.namespace_labels, labels("k: v l: w"));
        assert_eq!((web.labels.len(), db.labels.len()), (1, 0));
        assert_eq!(db.ip, "10.0.0.2".parse::<IpAddr>().unwrap());
        let names: Vec<&str> = web.ports.iter().map(|port| &*port.name).collect();
        assert_eq!(names, ["http", "dns"]);
        assert_eq!(web.ports[1].protocol, Protocol::Udp);
    }

    #[test]
    fn cells_of_several_ports_and_of_one_are_read() {
        let several = "\
+--------+-----+-----+
| TCP/80 | X/A | X/B |
| UDP/81 |     |     |
+--------+-----+-----+
| x/a    | . X | X X |
+--------+-----+-----+
| x/b    | . . | X . |
+--------+-----+-----+
";
        let table = truth(several);
        assert_eq!(table.pods, ["x/a", "x/b"]);
        assert_eq!(
            table.ports,
            [(Protocol::Tcp, port("80")), (Protocol::Udp, port("81"))]
        );
        assert_eq!(table.cells[0], [[true, false], [false, false]]);
        assert_eq!(table.cells[1], [[true, true], [false, true]]);

        let one = "\
+-----+-----+-----+
|     | X/A | X/B |
+-----+-----+-----+
| x/a | .   | X   |
| x/b | X   | .   |
+-----+-----+-----+
";
        let table = truth(one);
        assert_eq!(table.ports, []);
        assert_eq!(table.cells, [[[true], [false]], [[false], [true]]]);
    }

    #[test]
    #[should_panic(expected = "neither allowed nor blocked")]
    fn a_sign_that_is_not_known_is_no_answer() {
        truth("+-----+-----+\n|     | X/A |\n+-----+-----+\n| x/a | ?   |\n+-----+-----+\n");
    }
}
