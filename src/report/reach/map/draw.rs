//! A scene with its places to SVG. Names come from manifests that anybody may have written: all text is escaped, and
//! what is too long is cut, with the whole of it in a tooltip.

use std::fmt::Write;

use dagre::Point;

use super::scene::{Edge, Node, Scene, Shape};
use super::{Frame, Placed, Route};

/// How wide a letter of the main size is, on average; fonts differ, so this is a little more than most need.
const LETTER: f64 = 7.4;
/// The same of small letters.
const SMALL_LETTER: f64 = 6.3;
/// More letters than this are cut.
const MOST_LETTERS: usize = 34;
/// More letters of ports than this are cut.
const MOST_PORTS: usize = 26;
/// How many colours edges have.
const COLOURS: usize = 8;
/// The place for the name of a box, above what is in it.
const BOX_HEAD: f64 = 22.0;

/// Light and dark; a viewer that knows no media queries shows the light one.
const STYLE: &str = "
  svg { background: #ffffff }
  text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif; fill: #1f2933; text-anchor: middle }
  .note, .port { font-size: 11px; fill: #52606d }
  .port { fill: #1f2933 }
  .head { font-weight: 600; text-anchor: start }
  .ground, .plate { fill: #ffffff }
  .plate { fill-opacity: 0.86 }
  .box { fill: #f3f5f8; stroke: #c3ccd6 }
  .node { fill: #ffffff; stroke: #7b8794; stroke-width: 1.2 }
  .outside { fill: #fdf6e3; stroke: #b58900 }
  .everyone { fill: #eef2ff; stroke: #6366f1 }
  .edge { fill: none; stroke-width: 1.5 }
  .denied { stroke: #d11a2a; stroke-width: 2; stroke-dasharray: 6 4 }
  .denied-port { fill: #d11a2a; font-weight: 600 }
  .c0 { stroke: #2563eb } .c1 { stroke: #0f766e } .c2 { stroke: #9333ea } .c3 { stroke: #b45309 }
  .c4 { stroke: #4d7c0f } .c5 { stroke: #be185d } .c6 { stroke: #0e7490 } .c7 { stroke: #57534e }
  @media (prefers-color-scheme: dark) {
    svg { background: #14181d }
    text { fill: #e6e9ed }
    .note { fill: #9aa5b1 }
    .port { fill: #e6e9ed }
    .ground, .plate { fill: #14181d }
    .box { fill: #1c2229; stroke: #3e4c59 }
    .node { fill: #14181d; stroke: #9aa5b1 }
    .outside { fill: #2b2410; stroke: #d8a300 }
    .everyone { fill: #1e1f45; stroke: #a5b4fc }
    .denied { stroke: #ff6b78 }
    .denied-port { fill: #ff6b78 }
    .c0 { stroke: #7aa7ff } .c1 { stroke: #4fd1c5 } .c2 { stroke: #c99bff } .c3 { stroke: #f2b366 }
    .c4 { stroke: #a3d65c } .c5 { stroke: #ff8fc0 } .c6 { stroke: #67d4ea } .c7 { stroke: #c7c1bb }
  }
";

/// How large a node is drawn.
pub(super) fn size(node: &Node) -> (f64, f64) {
    let label = letters(&cut(&node.label, MOST_LETTERS)) * LETTER;
    let below = letters(&node.note) * SMALL_LETTER;
    (label.max(below) + 26.0, 42.0)
}

/// How much place the ports of an edge take.
pub(super) fn label_size(edge: &Edge) -> (f64, f64) {
    let ports = cut(&edge.ports.to_string(), MOST_PORTS);
    (letters(&ports) * SMALL_LETTER + 8.0, 16.0)
}

/// The whole picture.
pub(super) fn svg(scene: &Scene, placed: &Placed) -> String {
    let (width, height) = extent(placed);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-labelledby=\"title\">\n<title id=\"title\">Who reaches whom</title>\n\
         <style>{STYLE}</style>\n{}\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
        markers()
    );
    for (name, frame) in scene.boxes.iter().zip(&placed.boxes) {
        draw_box(&mut svg, name, *frame);
    }
    for (edge, route) in scene.edges.iter().zip(&placed.edges) {
        draw_edge(&mut svg, scene, edge, route);
    }
    for (node, frame) in scene.nodes.iter().zip(&placed.nodes) {
        draw_node(&mut svg, node, *frame);
    }
    for (edge, route) in scene.edges.iter().zip(&placed.edges) {
        draw_ports(&mut svg, edge, route);
    }
    if scene.edges.is_empty() {
        svg.push_str("<text x=\"50%\" y=\"50%\">no connection is allowed</text>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn extent(placed: &Placed) -> (f64, f64) {
    let frames = placed.nodes.iter().chain(&placed.boxes);
    let (mut width, mut height) = (240.0_f64, 80.0_f64);
    for frame in frames {
        width = width.max(frame.x + frame.width / 2.0);
        height = height.max(frame.y + frame.height / 2.0);
    }
    for route in &placed.edges {
        for point in &route.points {
            width = width.max(point.x);
            height = height.max(point.y);
        }
        if let Some((x, y)) = route.label {
            width = width.max(x + 60.0);
            height = height.max(y + 10.0);
        }
    }
    (width + 24.0, height + 24.0)
}

/// The arrow heads, one of each colour: they do not take over that of their line everywhere.
fn markers() -> String {
    let mut markers = String::from("<defs>");
    let classes = (0..COLOURS).map(|colour| format!("c{colour}"));
    for class in classes.chain(["denied".to_owned()]) {
        let _ = write!(
            markers,
            "<marker id=\"to-{class}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" markerHeight=\"9\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"edge {class}\" \
             style=\"stroke-dasharray:none\" d=\"M1 1 L9 5 L1 9\"/></marker>"
        );
    }
    markers.push_str("</defs>");
    markers
}

fn draw_box(svg: &mut String, name: &str, frame: Frame) {
    let (left, top) = (frame.x - frame.width / 2.0, frame.y - frame.height / 2.0);
    let _ = writeln!(
        svg,
        "<g><title>namespace {}</title><rect class=\"box\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"8\"/>\
         <text class=\"head\" x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        escaped(name),
        top - BOX_HEAD / 2.0,
        frame.width,
        frame.height + BOX_HEAD / 2.0,
        left + 10.0,
        top + 6.0,
        escaped(&cut(name, MOST_LETTERS)),
    );
}

fn draw_node(svg: &mut String, node: &Node, frame: Frame) {
    let (class, radius) = match node.shape {
        Shape::Workload => ("node", 6),
        Shape::Namespace => ("box", 8),
        Shape::Everyone => ("node everyone", 8),
        Shape::Outside => ("node outside", 21),
    };
    let (left, top) = (frame.x - frame.width / 2.0, frame.y - frame.height / 2.0);
    let _ = writeln!(
        svg,
        "<g><title>{} ({})</title><rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"{radius}\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\">{}</text><text class=\"note\" x=\"{x:.1}\" y=\"{:.1}\">{}</text></g>",
        escaped(&node.label),
        escaped(&node.note),
        frame.width,
        frame.height,
        frame.y - 2.0,
        escaped(&cut(&node.label, MOST_LETTERS)),
        frame.y + 13.0,
        escaped(&node.note),
        x = frame.x,
    );
}

fn draw_edge(svg: &mut String, scene: &Scene, edge: &Edge, route: &Route) {
    let class = if edge.is_denied {
        "denied".to_owned()
    } else {
        format!("c{}", edge.from % COLOURS)
    };
    let name = |node: usize| {
        let node = scene.nodes.get(node);
        node.map(|node| node.label.as_str()).unwrap_or_default()
    };
    let word = if edge.is_denied {
        "must not reach"
    } else {
        "reaches"
    };
    let _ = writeln!(
        svg,
        "<path class=\"edge {class}\" marker-end=\"url(#to-{class})\" d=\"{}\"><title>{} {word} {}: {}</title></path>",
        if edge.from == edge.to {
            round(&route.points)
        } else {
            path(&route.points)
        },
        escaped(name(edge.from)),
        escaped(name(edge.to)),
        escaped(&edge.ports.to_string()),
    );
}

fn draw_ports(svg: &mut String, edge: &Edge, route: &Route) {
    let Some((x, y)) = route.label else {
        return;
    };
    let (width, height) = label_size(edge);
    let class = if edge.is_denied {
        "port denied-port"
    } else {
        "port"
    };
    let _ = writeln!(
        svg,
        "<rect class=\"plate\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"3\"/>\
         <text class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
        x - width / 2.0,
        y - height / 2.0,
        y + 4.0,
        escaped(&cut(&edge.ports.to_string(), MOST_PORTS)),
    );
}

/// A line through some points that leaves and enters each of them levelly.
fn path(points: &[Point]) -> String {
    let mut path = String::new();
    for pair in points.windows(2) {
        if let [from, to] = pair {
            if path.is_empty() {
                let _ = write!(path, "M{:.1} {:.1}", from.x, from.y);
            }
            let middle = f64::midpoint(from.x, to.x);
            let _ = write!(
                path,
                " C{middle:.1} {:.1} {middle:.1} {:.1} {:.1} {:.1}",
                from.y, to.y, to.x, to.y
            );
        }
    }
    path
}

/// A loop from a node to itself: each point but the ends bends the way from the middle of one piece to that of the next.
fn round(points: &[Point]) -> String {
    let mut path = String::new();
    let Some(first) = points.first() else {
        return path;
    };
    let _ = write!(path, "M{:.1} {:.1}", first.x, first.y);
    for three in points.windows(3) {
        if let [_, bend, next] = three {
            let (x, y) = (f64::midpoint(bend.x, next.x), f64::midpoint(bend.y, next.y));
            let _ = write!(path, " Q{:.1} {:.1} {x:.1} {y:.1}", bend.x, bend.y);
        }
    }
    if let Some(last) = points.last() {
        let _ = write!(path, " L{:.1} {:.1}", last.x, last.y);
    }
    path
}

/// The first letters of a text.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn letters(text: &str) -> f64 {
    f64::from(u32::try_from(text.chars().count()).unwrap_or(u32::MAX))
}

/// A text as the content of an element or an attribute; what XML does not allow at all is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
