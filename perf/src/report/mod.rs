//! Reports of what a run measured: text for people, JSON for programs, fio's JSON for what reads fio's, HTML with
//! plots.
//!
//! [`Report`] takes the [`Results`] of one run or of several that followed one another (a job file with stonewalls),
//! works out rates and percentiles once, and writes them in each form. Nothing here measures. The owner of a run
//! builds a `Report` when all of it is over.

mod fio;
mod html;
mod json;
mod merge;
mod options;
mod plot;
mod summary;
#[cfg(test)]
mod tests;
mod text;

pub use fio::VERSION as FIO_VERSION;
pub use merge::merge_jobs;
pub use options::line as describe;
pub use summary::Report;

/// A form of report that goes to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A few lines for people.
    #[default]
    Text,
    /// JSON, with a schema that only grows.
    Json,
    /// JSON as `fio --output-format=json` writes it.
    Fio,
}

impl Report {
    /// The report in one of its forms.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Text => text::render(self),
            Format::Json => json::render(self),
            Format::Fio => fio::render(self),
        }
    }

    /// A page with plots that needs nothing from elsewhere.
    pub fn render_html(&self) -> String {
        html::render(self)
    }

    /// What makes the run a failure.
    pub fn failure(&self) -> Option<String> {
        let errors: u64 = self.jobs.iter().map(|job| job.results.errors).sum();
        let first = self.jobs.iter().find_map(|job| job.results.first_error.as_deref());
        match (errors, first) {
            (0, None) => None,
            (0 | 1, Some(first)) => Some(first.to_owned()),
            (errors, Some(first)) => Some(format!("{errors} errors; the first: {first}")),
            (errors, None) => Some(format!("{errors} errors")),
        }
    }
}
