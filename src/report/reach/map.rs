//! Reachability as a map to look at: SVG, namespaces as boxes, workloads inside, edges with ports.
//!
//! What is drawn is settled first, as a [`Scene`]: every workload of a small listing, only namespaces of a large one
//! (`map/scene.rs`). The `dagre` crate finds places for it; `map/draw.rs` writes it down, with every name escaped.

use dagre::graph::{Graph, GraphOptions};
use dagre::{EdgeLabel, LayoutOptions, NodeLabel, Point, RankDir};
use ipnet::IpNet;

use super::groups::Population;
use crate::netpol::WorkloadRef;
use crate::netpol::reach::{Party, PortSet, Row};
use scene::{Edge, Scene};

mod draw;
mod scene;

/// What a map is made of.
pub struct Map<'a, I> {
    /// The connections.
    pub rows: I,
    /// All workloads of the cluster.
    pub workloads: Vec<&'a WorkloadRef>,
    /// Connections that are demanded to be closed, to be drawn in red whether they are open or not.
    pub denied: Vec<Denied>,
}

/// A connection that is demanded to be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Who opens it.
    pub from: DeniedEnd,
    /// To whom.
    pub to: DeniedEnd,
    /// At which ports.
    pub ports: PortSet,
}

/// One end of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeniedEnd {
    /// A workload or a block.
    pub party: Party,
    /// What is left out of the block.
    pub except: Vec<IpNet>,
}

/// There is too much for a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{nodes} boxes with {edges} edges make no map that can be read; ask for some of them with --from, --to or --port"
)]
pub struct TooCrowded {
    nodes: usize,
    edges: usize,
}

/// A map with more than this is refused: nobody could read it.
const MOST_NODES: usize = 200;
/// See [`MOST_NODES`].
const MOST_EDGES: usize = 600;

/// Where something is drawn: its middle and its size.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Frame {
    /// Moves the end of a line to the side that looks to where the line comes from.
    fn meet(self, end: &mut Point, from: f64) {
        const CORNER: f64 = 8.0;
        let (left, right) = (self.x - self.width / 2.0, self.x + self.width / 2.0);
        if from <= left {
            end.x = left;
        } else if from >= right {
            end.x = right;
        } else {
            return;
        }
        let half = (self.height / 2.0 - CORNER).max(0.0);
        end.y = end.y.clamp(self.y - half, self.y + half);
    }
}

/// A scene with its places, all in the order of the scene.
struct Placed {
    nodes: Vec<Frame>,
    boxes: Vec<Frame>,
    edges: Vec<Route>,
}

/// The way of an edge, and the middle of its label.
#[derive(Default)]
struct Route {
    points: Vec<Point>,
    label: Option<(f64, f64)>,
}

impl<I: Iterator<Item = Row>> Map<'_, I> {
    /// The picture.
    pub fn svg(self) -> Result<String, TooCrowded> {
        let population = Population::of(self.workloads);
        let scene = Scene::of(self.rows, &self.denied, &population);
        let (nodes, edges) = (scene.nodes.len(), scene.edges.len());
        if nodes > MOST_NODES || edges > MOST_EDGES {
            return Err(TooCrowded { nodes, edges });
        }
        let placed = place(&scene);
        Ok(draw::svg(&scene, &placed))
    }
}

/// Finds a place for everything.
fn place(scene: &Scene) -> Placed {
    let mut graph: Graph<NodeLabel, EdgeLabel> = Graph::with_options(GraphOptions {
        directed: true,
        multigraph: true,
        compound: true,
    });
    for (index, _) in scene.boxes.iter().enumerate() {
        graph.set_node(box_id(index), Some(NodeLabel::default()));
    }
    for (index, node) in scene.nodes.iter().enumerate() {
        let (width, height) = draw::size(node);
        let label = NodeLabel {
            width,
            height,
            ..NodeLabel::default()
        };
        graph.set_node(node_id(index), Some(label));
        if let Some(parent) = node.parent {
            graph.set_parent(&node_id(index), Some(&box_id(parent)));
        }
    }
    for (index, edge) in scene.edges.iter().enumerate() {
        let (width, height) = draw::label_size(edge);
        let label = EdgeLabel {
            width,
            height,
            labelpos: dagre::layout::types::LabelPos::Center,
            ..EdgeLabel::default()
        };
        let (from, to) = (node_id(edge.from), node_id(edge.to));
        graph.set_edge(from, to, Some(label), Some(&edge_id(index)));
    }
    let options = LayoutOptions {
        rankdir: RankDir::LR,
        nodesep: 26.0,
        edgesep: 14.0,
        ranksep: 46.0,
        marginx: 24.0,
        marginy: 24.0,
        ..LayoutOptions::default()
    };
    dagre::layout(&mut graph, Some(options));
    let frame = |id: String| {
        let node = graph.node(&id);
        node.map_or(Frame::default(), |node| Frame {
            x: node.x.unwrap_or_default(),
            y: node.y.unwrap_or_default(),
            width: node.width,
            height: node.height,
        })
    };
    let route = |(index, edge): (usize, &Edge)| {
        let (from, to) = (node_id(edge.from), node_id(edge.to));
        let label = graph.edge(&from, &to, Some(&edge_id(index)));
        let Some(label) = label else {
            return Route::default();
        };
        let mut points = label.points.clone();
        if edge.from != edge.to {
            // Each end meets the side of its node that the line comes from, where there is one: lines are level there.
            if let [start, next, ..] = &mut points[..] {
                frame(from).meet(start, next.x);
            }
            if let [.., before, end] = &mut points[..] {
                frame(to).meet(end, before.x);
            }
        }
        Route {
            points,
            label: label.x.zip(label.y),
        }
    };
    Placed {
        nodes: (0..scene.nodes.len())
            .map(|index| frame(node_id(index)))
            .collect(),
        boxes: (0..scene.boxes.len())
            .map(|index| frame(box_id(index)))
            .collect(),
        edges: scene.edges.iter().enumerate().map(route).collect(),
    }
}

fn node_id(index: usize) -> String {
    format!("n{index}")
}

fn box_id(index: usize) -> String {
    format!("b{index}")
}

fn edge_id(index: usize) -> String {
    format!("e{index}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netpol::WorkloadKind;

    fn workload(namespace: &str, name: &str) -> WorkloadRef {
        WorkloadRef {
            kind: WorkloadKind::Deployment,
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Each workload reaches the next one and the outside.
    fn chain(workloads: &[WorkloadRef], denied: Vec<Denied>) -> String {
        let rows = workloads.windows(2).map(|pair| {
            let outside = Party::Outside("192.0.2.0/24".parse().expect("a block"));
            Row {
                from: Party::Workload(pair[0].clone()),
                to: vec![
                    (Party::Workload(pair[1].clone()), PortSet::all()),
                    (outside, PortSet::all()),
                ],
            }
        });
        let map = Map {
            rows,
            workloads: workloads.iter().collect(),
            denied,
        };
        map.svg().expect("not too crowded")
    }

    fn count(svg: &str, what: &str) -> usize {
        svg.matches(what).count()
    }

    #[test]
    fn names_are_escaped_and_cut() {
        let hostile = "</text><script>alert('x')</script>&\"";
        let svg = chain(
            &[
                workload(hostile, hostile),
                workload("n", &"long".repeat(60)),
            ],
            Vec::new(),
        );
        assert!(!svg.contains("<script"), "{svg}");
        assert!(svg.contains("&lt;/text&gt;&lt;script&gt;alert(&apos;x"));
        assert!(svg.contains("…</text>") && svg.contains(&"long".repeat(60)));
        assert_eq!(count(&svg, "<text"), count(&svg, "</text>"));
    }

    #[test]
    fn few_workloads_are_drawn_each_and_many_by_namespace() {
        let of = |count: usize| -> Vec<WorkloadRef> {
            let name = |index: usize| workload(&format!("n{}", index % 5), &format!("w{index}"));
            (0..count).map(name).collect()
        };
        let few = chain(&of(50), Vec::new());
        assert_eq!(
            (count(&few, "class=\"box\""), count(&few, "class=\"node\"")),
            (5, 50)
        );
        let many = chain(&of(51), Vec::new());
        assert_eq!(
            (
                count(&many, "class=\"box\""),
                count(&many, "class=\"node\"")
            ),
            (5, 0)
        );
        assert!(many.contains("11 workloads") && many.contains("10 workloads"));
        assert_eq!(few, chain(&of(50), Vec::new()), "the same each time");
    }

    #[test]
    fn what_is_demanded_to_be_closed_is_red() {
        let (a, b) = (workload("a", "web"), workload("b", "db"));
        let end = |party, except: &[&str]| DeniedEnd {
            party,
            except: except.iter().map(|text| text.parse().unwrap()).collect(),
        };
        let denied = Denied {
            from: end(Party::Workload(a.clone()), &[]),
            to: end(Party::Workload(b.clone()), &[]),
            ports: PortSet::all(),
        };
        let world = Party::Outside("0.0.0.0/0".parse().unwrap());
        let to_most = Denied {
            to: end(world, &["10.0.0.0/8", "192.0.2.0/24"]),
            ..denied.clone()
        };
        let svg = chain(&[a.clone(), b.clone()], vec![to_most]);
        assert!(svg.contains("outside, except 10.0.0.0/8 and 1 more"));
        let svg = chain(&[a, b], vec![denied]);
        assert_eq!(count(&svg, "class=\"edge denied\" marker-end"), 1);
        assert!(svg.contains("web must not reach db: all ports"));
    }

    #[test]
    fn a_map_that_nobody_can_read_is_refused() {
        let one = |index: usize| workload(&format!("n{index}"), "w");
        let workloads: Vec<WorkloadRef> = (0..300).map(one).collect();
        let rows = workloads.windows(2).map(|pair| Row {
            from: Party::Workload(pair[0].clone()),
            to: vec![(Party::Workload(pair[1].clone()), PortSet::all())],
        });
        let map = Map {
            rows,
            workloads: workloads.iter().collect(),
            denied: Vec::new(),
        };
        let error = map.svg().expect_err("too crowded").to_string();
        assert!(error.starts_with("300 boxes with 299 edges"), "{error}");
    }
}
