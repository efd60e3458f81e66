//! What a command prints: a table for people, JSON for programs.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// A command's result in both forms.
#[derive(Debug)]
pub struct Report {
    /// For programs.
    pub json: Value,
    /// For people.
    pub text: String,
}

impl Report {
    /// A table; `none` is said instead when it has no rows.
    pub fn table(json: Value, table: Rows, none: &str) -> Report {
        let text = if table.rows == 0 { format!("{none}\n") } else { table.text() };
        Report { json, text }
    }

    /// A sentence.
    pub fn say(json: Value, text: impl Into<String>) -> Report {
        let mut text = text.into();
        text.push('\n');
        Report { json, text }
    }

    /// The form that was asked for.
    pub fn form(self, as_json: bool) -> String {
        if as_json { format!("{:#}\n", self.json) } else { self.text }
    }
}

/// A table being filled.
#[derive(Debug)]
pub struct Rows {
    table: Table,
    rows: usize,
}

impl Rows {
    /// A table with a line of headings; those that start with `#` are numbers, aligned right.
    pub fn new(headings: &[&str]) -> Rows {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(headings.iter().map(|heading| heading.trim_start_matches('#')));
        for (index, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                let last = index + 1 == headings.len();
                column.set_padding((0, if last { 0 } else { 2 }));
                if heading.starts_with('#') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Rows { table, rows: 0 }
    }

    /// Adds a row.
    pub fn add<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.table.add_row(cells);
        self.rows += 1;
    }

    fn text(&self) -> String {
        let mut text: String = self.table.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        if text.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Names and values below each other.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// A member as text: strings as they are, but for what a terminal would take for a command (hosts choose some of them
/// themselves); a missing one as a dash.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.contains(char::is_control) => {
            text.chars().map(|it| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it }).collect()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The items of an array; none when it is no array.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A transport address as `127.0.0.1:4420`.
pub fn address(value: &Value) -> String {
    let (ip, port) = (text(&value["traddr"]), text(&value["trsvcid"]));
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The share of `part` in `part + rest`.
pub fn percent(part: u64, rest: u64) -> String {
    let all = part.saturating_add(rest).max(1);
    format!("{:.1} %", part as f64 * 100.0 / all as f64)
}
