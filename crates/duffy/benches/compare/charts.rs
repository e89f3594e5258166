//! Charts as SVG: bars of the ratios, and lines. Their colors fit light and dark pages.

use std::fmt::Write;

use crate::figures::{LineChart, Row, number};

const WIDTH: f64 = 900.0;
/// The longest label of a bar, in characters.
const LABEL: usize = 76;
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.end { text-anchor: end }
.middle { text-anchor: middle }
.grid { stroke: #8c959f; stroke-opacity: .35 }
.line { stroke-width: 2; fill: none }
.bar.original, .point.original { fill: #bc4c00 }
.bar.ours, .point.ours { fill: #0969da }
.line.original { stroke: #bc4c00 }
.line.ours { stroke: #0969da }
.dash1 { stroke-dasharray: 7 4 }
.dash2 { stroke-dasharray: 2 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .bar.original, .point.original { fill: #f0883e }
  .bar.ours, .point.ours { fill: #58a6ff }
  .line.original { stroke: #f0883e }
  .line.ours { stroke: #58a6ff }
}
";

fn document(height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n\
         <text class=\"title\" x=\"10\" y=\"22\">{title}</text>\n{body}</svg>\n",
        title = escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('`', "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A logarithmic axis from `low` to `high`, which are powers of ten, on `from..to` of the picture.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).max(1e-3);
        let high = values.fold(low, f64::max);
        let (low, high) = (low.log10().floor(), (high * 1.02).log10().ceil());
        Self {
            low,
            high: high.max(low + 1.0),
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.max(1e-3).log10() - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }

    /// The powers of ten.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low as i32, self.high as i32);
        (low..=high).map(|power| 10f64.powi(power))
    }
}

/// Draws how many times as good ours is, a bar for each row with a ratio.
pub fn ratios(rows: &[Row]) -> String {
    let rows: Vec<(&Row, f64)> = rows
        .iter()
        .filter_map(|row| Some((row, row.ratio()?)))
        .collect();
    let label_width = 520.0;
    let axis = Axis::around(
        rows.iter().map(|(_, ratio)| *ratio).chain([1.0]),
        label_width,
        WIDTH - 70.0,
    );
    let bottom = 40.0 + rows.len() as f64 * 26.0;
    let mut body = String::new();
    for tick in axis.ticks() {
        let x = axis.place(tick);
        let label = number(tick);
        writeln!(
            body,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"36\" y2=\"{bottom}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"{:.0}\">{label} ×</text>",
            bottom + 18.0
        )
        .unwrap();
    }
    for (index, (row, ratio)) in rows.iter().enumerate() {
        let y = 40.0 + index as f64 * 26.0;
        let (zero, end) = (axis.place(1.0), axis.place(*ratio));
        let (left, width) = (zero.min(end), (end - zero).abs().max(1.0));
        let mut name: String = row.what.chars().take(LABEL).collect();
        if name.len() < row.what.len() {
            name.push('…');
        }
        let (middle, name) = (y + 14.0, escape(&name));
        writeln!(
            body,
            "<text class=\"end\" x=\"{:.0}\" y=\"{middle}\">{name}</text>\
             <rect class=\"bar ours\" x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{middle}\">{} ×</text>",
            label_width - 8.0,
            zero.max(end) + 6.0,
            number(*ratio)
        )
        .unwrap();
    }
    document(
        bottom + 30.0,
        "How many times as good as the Python original",
        &body,
    )
}

/// Draws lines on logarithmic axes.
pub fn lines(chart: &LineChart) -> String {
    let (left, right, top, bottom) = (70.0, WIDTH - 230.0, 46.0, 330.0);
    let points = || chart.lines.iter().flat_map(|(_, points)| points.iter());
    // The numbers of clients are powers of two: the axis begins and ends with them.
    let mut across = Axis::around(points().map(|point| point.0), left, right);
    let values: Vec<f64> = points().map(|point| point.0).collect();
    across.low = values
        .iter()
        .copied()
        .fold(f64::INFINITY, f64::min)
        .max(1.0)
        .log10();
    across.high = values.iter().copied().fold(1.0, f64::max).log10();
    let up = Axis::around(points().map(|point| point.1), bottom, top);
    let mut body = String::new();
    for tick in up.ticks() {
        let (y, label) = (up.place(tick), number(tick));
        writeln!(
            body,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"end\" x=\"{:.0}\" y=\"{:.1}\">{label}</text>",
            left - 8.0,
            y + 4.0
        )
        .unwrap();
    }
    let mut columns = values;
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    for column in columns {
        let (x, label) = (across.place(column), number(column).replace(".0", ""));
        writeln!(
            body,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"middle\" x=\"{x:.1}\" y=\"{:.0}\">{label}</text>",
            bottom + 18.0
        )
        .unwrap();
    }
    writeln!(
        body,
        "<text class=\"middle\" x=\"{:.0}\" y=\"{:.0}\">{}</text><text x=\"10\" y=\"{:.0}\">{}</text>",
        f64::midpoint(left, right),
        bottom + 38.0,
        escape(chart.x),
        top - 6.0,
        escape(chart.y)
    )
    .unwrap();
    let mut seen = [0, 0];
    for (index, (label, points)) in chart.lines.iter().enumerate() {
        let side = usize::from(label.starts_with("ours"));
        let (class, dash) = (["original", "ours"][side], seen[side] % 3);
        seen[side] += 1;
        let places: Vec<(f64, f64)> = points
            .iter()
            .map(|(x, y)| (across.place(*x), up.place(*y)))
            .collect();
        let path: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        writeln!(
            body,
            "<polyline class=\"line {class} dash{dash}\" points=\"{}\"/>",
            path.join(" ")
        )
        .unwrap();
        for (x, y) in places {
            write!(
                body,
                "<circle class=\"point {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
            )
            .unwrap();
        }
        let y = top + 10.0 + index as f64 * 22.0;
        writeln!(
            body,
            "<line class=\"line {class} dash{dash}\" x1=\"{0}\" x2=\"{1}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text x=\"{2}\" y=\"{3}\">{4}</text>",
            right + 20.0,
            right + 54.0,
            right + 62.0,
            y + 4.0,
            escape(label)
        )
        .unwrap();
    }
    document(bottom + 50.0, chart.title, &body)
}
