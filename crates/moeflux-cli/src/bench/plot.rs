//! Small plots as SVG.

use std::fmt::Write;

/// A line of a plot.
pub(super) struct Series<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 300.0;
/// Room for the axes' numbers and names.
const LEFT: f64 = 64.0;
const BELOW: f64 = 48.0;
const ABOVE: f64 = 32.0;
const RIGHT: f64 = 16.0;

/// Panels side by side, each with its title and two lines over the same kind of x, from 0 to 100.
pub(super) fn svg(x_name: &str, panels: &[(&str, [Series<'_>; 2])]) -> String {
    let mut svg = String::new();
    let width = WIDTH * panels.len() as f64;
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>"#
    );
    for (i, (title, series)) in panels.iter().enumerate() {
        let _ = writeln!(svg, r#"<g transform="translate({},0)">"#, i as f64 * WIDTH);
        panel(&mut svg, x_name, title, series);
        let _ = writeln!(svg, "</g>");
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, x_name: &str, title: &str, series: &[Series<'_>]) {
    let values = series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let top = nice(values.filter(|value| value.is_finite()).fold(0.0, f64::max));
    let (inner_width, inner_height) = (WIDTH - LEFT - RIGHT, HEIGHT - ABOVE - BELOW);
    let x = |percent: f64| LEFT + inner_width * percent / 100.0;
    let y = |value: f64| HEIGHT - BELOW - inner_height * value / top;
    let middle = LEFT + inner_width / 2.0;
    let _ =
        writeln!(svg, r#"<text x="{middle}" y="20" text-anchor="middle" font-weight="bold">{title}</text>"#);
    let _ = writeln!(svg, r#"<text x="{middle}" y="{}" text-anchor="middle">{x_name}</text>"#, HEIGHT - 10.0);
    for step in 0..=4 {
        let (percent, value) = (25.0 * f64::from(step), top * f64::from(step) / 4.0);
        let (at_x, at_y) = (x(percent), y(value));
        let (left, right, bottom) = (x(0.0), x(100.0), y(0.0));
        let _ = writeln!(
            svg,
            r##"<line x1="{left}" y1="{at_y:.1}" x2="{right}" y2="{at_y:.1}" stroke="#ddd"/>
<text x="{}" y="{:.1}" text-anchor="end">{}</text>
<text x="{at_x:.1}" y="{}" text-anchor="middle">{percent}</text>"##,
            left - 6.0,
            at_y + 4.0,
            (value * 1000.0).round() / 1000.0,
            bottom + 16.0,
        );
    }
    for (i, Series { name, points, dashed }) in series.iter().enumerate() {
        let (color, dash) = if *dashed { ("#888", r#" stroke-dasharray="5 4""#) } else { ("#1668b8", "") };
        let line: Vec<String> = points
            .iter()
            .filter(|point| point.1.is_finite())
            .map(|&(percent, value)| format!("{:.1},{:.1}", x(percent), y(value)))
            .collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="2"{dash}/>"#,
            line.join(" ")
        );
        for point in &line {
            if let Some((cx, cy)) = point.split_once(',') {
                let _ = writeln!(svg, r#"<circle cx="{cx}" cy="{cy}" r="3" fill="{color}"/>"#);
            }
        }
        let legend = ABOVE + 12.0 + 16.0 * i as f64;
        let _ = writeln!(svg, r#"<text x="{}" y="{legend}" fill="{color}">{name}</text>"#, LEFT + 8.0);
    }
}

/// The next larger of 1, 2 or 4 times a power of ten, so that quarters are short numbers.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|&nice| nice >= value)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_short_numbers() {
        for (value, expected) in
            [(0.0, 1.0), (1.0, 1.0), (1.3, 2.0), (37.0, 40.0), (0.05, 0.1), (401.0, 1000.0)]
        {
            assert!((nice(value) - expected).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn every_point_is_drawn_once() {
        let series =
            |dashed| Series { name: "a", points: vec![(10.0, 1.0), (100.0, f64::NAN), (50.0, 3.0)], dashed };
        let svg = svg("x", &[("one", [series(false), series(true)])]);
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!((svg.matches("<svg").count(), svg.matches("</svg>").count()), (1, 1));
        assert!(!svg.contains("NaN"));
    }
}
