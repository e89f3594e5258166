//! What the rows measure: figures of both programs and yardsticks, and lines for charts.

/// A figure, or the reason why there is none.
#[derive(Debug, Clone)]
pub struct Figure {
    /// The value that is compared; `None` if it cannot be measured.
    pub value: Option<f64>,
    /// The value with its unit and details, or the reason.
    pub text: String,
}

impl Figure {
    /// A measured value.
    pub fn new(value: f64, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            value: Some(value),
            text,
        }
    }

    /// No value, for this reason.
    pub fn none(reason: &str) -> Self {
        Self {
            value: None,
            text: format!("– ({reason})"),
        }
    }
}

/// Whether a greater value is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Greater,
    Less,
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// What is measured.
    pub what: String,
    pub better: Better,
    pub original: Figure,
    pub ours: Figure,
    /// What the same work costs without Duffy, in the same run.
    pub yardstick: Option<Figure>,
    /// What ours should reach, and whether it does; `None` if that cannot be decided.
    pub reach: &'static str,
    pub reached: Option<bool>,
}

impl Row {
    /// How many times as good ours is as the original.
    pub fn ratio(&self) -> Option<f64> {
        self.times(self.ours.value?, self.original.value?)
    }

    /// How many times as good ours is as the yardstick.
    pub fn of_yardstick(&self) -> Option<f64> {
        self.times(self.ours.value?, self.yardstick.as_ref()?.value?)
    }

    fn times(&self, ours: f64, other: f64) -> Option<f64> {
        let (good, bad) = match self.better {
            Better::Greater => (ours, other),
            Better::Less => (other, ours),
        };
        (good > 0.0 && bad > 0.0).then(|| good / bad)
    }
}

/// A chart with a line for each measured thing. Both axes are logarithmic.
#[derive(Debug)]
pub struct LineChart {
    /// The name of the file, without `.svg`.
    pub file: &'static str,
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
    /// The label of a line, and its points.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Everything that a run measured.
#[derive(Debug, Default)]
pub struct Results {
    pub rows: Vec<Row>,
    pub charts: Vec<LineChart>,
}

/// Returns the median. 0 without values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 0 => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        count => sorted[count / 2],
    }
}

/// Formats a rate.
pub fn per_second(value: f64) -> String {
    format!("{}/s", number(value))
}

/// Formats milliseconds.
pub fn milliseconds(value: f64) -> String {
    format!("{} ms", number(value))
}

/// Formats a number with three digits, and with separators.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 10.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && digit != '-' {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}
