//! Line plots as SVG that stands in an HTML page. Colours are the page's variables, so that light and dark are its
//! matter; each point says its value when it is pointed at.

use std::fmt::Write;

/// Different colours; a plot has at most so many series.
pub const COLORS: usize = 8;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Points of one series that can still be told apart.
const MOST_POINTS: usize = 600;

/// A plot: axes and lines.
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// Below.
    pub x: Axis,
    /// On the left.
    pub y: Axis,
    /// Lines.
    pub series: Vec<Series>,
}

/// One axis: the range that it shows, and where it has marks.
pub struct Axis {
    label: &'static str,
    is_log: bool,
    from: f64,
    to: f64,
    ticks: Vec<(f64, String)>,
}

/// One line.
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Which colour, below [`COLORS`].
    pub color: usize,
    /// Dashes tell a second line of one colour from the first.
    pub is_dashed: bool,
    /// Where, and what to say about it.
    pub points: Vec<(f64, f64, String)>,
}

impl Axis {
    /// From zero, with round marks.
    pub fn linear(label: &'static str, most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let count = (most / step - 1e-9).ceil().max(1.0) as usize;
        let ticks = (0..=count).map(|index| step * index as f64).map(|value| (value, number(value)));
        Self { label, is_log: false, from: 0.0, to: step * count as f64, ticks: ticks.collect() }
    }

    /// From zero to an end that need not be round.
    pub fn time(label: &'static str, end: f64) -> Self {
        let mut axis = Self::linear(label, end);
        if end > 0.0 {
            axis.to = end;
            axis.ticks.retain(|(value, _)| *value <= end * 1.001);
        }
        axis
    }

    /// By powers of ten, or by 1, 2 and 5 where the range is short.
    pub fn log(label: &'static str, least: f64, most: f64) -> Self {
        let least = least.max(1e-3);
        let most = most.max(least * 1.001);
        let all = (-3..=12).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        let all: Vec<f64> = all.collect();
        let from = all.iter().copied().rfind(|value| *value <= least * 1.0001).unwrap_or(least);
        let to = all.iter().copied().find(|value| *value >= most * 0.9999).unwrap_or(most);
        let is_short = to / from <= 1100.0;
        let is_power = |value: f64| (value.log10() - value.log10().round()).abs() < 1e-9;
        let marked =
            all.into_iter().filter(|value| (from..=to).contains(value) && (is_short || is_power(*value)));
        let ticks = marked.map(|value| (value, number(value))).collect();
        Self { label, is_log: true, from, to, ticks }
    }

    /// With given marks, the first and the last of which are its ends.
    pub fn marked(label: &'static str, ticks: Vec<(f64, String)>) -> Self {
        let from = ticks.first().map_or(0.0, |tick| tick.0);
        let to = ticks.last().map_or(1.0, |tick| tick.0);
        Self { label, is_log: false, from, to, ticks }
    }

    /// Where a value lies, 0 at the beginning and 1 at the end.
    fn place(&self, value: f64) -> f64 {
        let (value, from, to) = match self.is_log {
            true => (value.max(self.from).ln(), self.from.ln(), self.to.ln()),
            false => (value, self.from, self.to),
        };
        if to > from { ((value - from) / (to - from)).clamp(0.0, 1.0) } else { 0.5 }
    }
}

/// A number as a mark says it: 1.2M, 300k, 0.5.
pub fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Text as it stands in HTML and SVG.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

impl Plot {
    /// A figure with the plot and its legend. Nothing when no series has a point.
    pub fn render(&self) -> String {
        if self.series.iter().all(|series| series.points.is_empty()) {
            return String::new();
        }
        let mut svg = String::new();
        let title = escape(&self.title);
        // Writing to a String can't fail, here and below.
        let _ = write!(
            svg,
            "<figure>\n<figcaption>{title}</figcaption>\n\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n"
        );
        self.draw_axes(&mut svg);
        for series in &self.series {
            self.draw(&mut svg, series);
        }
        svg.push_str("</svg>\n");
        if self.series.len() > 1 {
            svg.push_str("<ul class=\"legend\">\n");
            for series in &self.series {
                let (color, name) = (series.color % COLORS, escape(&series.name));
                let dashed = if series.is_dashed { " dashed" } else { "" };
                let _ = writeln!(svg, "<li><i class=\"c{color}{dashed}\"></i>{name}</li>");
            }
            svg.push_str("</ul>\n");
        }
        svg.push_str("</figure>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &self.y.ticks {
            let y = self.down(*value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let mut free = 0.0;
        for (value, label) in &self.x.ticks {
            let x = self.across(*value);
            let _ = write!(svg, "<path class=\"tick\" d=\"M{x:.1} {bottom}v4\"/>");
            // A label that would touch the one before is left out.
            let half = label.len() as f64 * 3.5;
            if x - half >= free {
                free = x + half + 6.0;
                let y = bottom + 18.0;
                let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>");
            }
            svg.push('\n');
        }
        let (middle_x, middle_y) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\n\
             <text class=\"label\" x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text class=\"label\" transform=\"translate(14 {middle_y}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            HEIGHT - 6.0,
            self.x.label,
            self.y.label
        );
    }

    fn draw(&self, svg: &mut String, series: &Series) {
        let step = series.points.len().div_ceil(MOST_POINTS).max(1);
        // Of points too close to tell apart the highest stays: what stands out must not vanish.
        let highest = |points: &[(f64, f64, String)]| {
            points.iter().max_by(|one, other| one.1.total_cmp(&other.1)).cloned()
        };
        let points: Vec<(f64, f64, String)> = series.points.chunks(step).filter_map(highest).collect();
        let color = series.color % COLORS;
        let dashed = if series.is_dashed { " dashed" } else { "" };
        let _ = write!(svg, "<path class=\"line c{color}{dashed}\" d=\"");
        for (index, (x, y, _)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            let _ = write!(svg, "{command}{:.1} {:.1}", self.across(*x), self.down(*y));
        }
        svg.push_str("\"/>\n");
        let radius = if points.len() == 1 { 4 } else { 7 };
        let class = if points.len() == 1 { "dot" } else { "spot" };
        for (x, y, words) in &points {
            let (x, y, words) = (self.across(*x), self.down(*y), escape(words));
            let _ = writeln!(
                svg,
                "<circle class=\"{class} c{color}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">\
                 <title>{words}</title></circle>"
            );
        }
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }
}
