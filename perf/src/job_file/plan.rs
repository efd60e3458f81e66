//! From sections to jobs: copies, ends, rates, targets, stages.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::{Draft, Taken};
use super::syntax::{Section, Setting};
use super::values::{Parsed, Units};
use super::{Defaults, JobFile, JobFileError, Stage};
use crate::job::{Job, Mode, NO_LIMIT, SizeSplit, SteadyState, Target, Walk};
use crate::target_name::is_address;
use crate::trace::Trace;

/// Makes jobs of the sections of a file.
pub fn plan(path: &Path, sections: &[Section], defaults: &Defaults) -> Result<JobFile, JobFileError> {
    let mut planner =
        Planner { defaults, stages: Vec::new(), ignored: BTreeSet::new(), warnings: Vec::new(), made: 0 };
    for section in sections {
        planner.add(section)?;
    }
    if planner.stages.is_empty() {
        return Err(JobFileError::File { path: path.into(), error: "there is no job in it".into() });
    }
    let mut warnings = planner.warnings;
    if !planner.ignored.is_empty() {
        let names = planner.ignored.into_iter().collect::<Vec<_>>().join(", ");
        warnings.insert(0, format!("{}: options without a meaning here: {names}", path.display()));
    }
    Ok(JobFile { stages: planner.stages, warnings })
}

struct Planner<'a> {
    defaults: &'a Defaults,
    stages: Vec<Stage>,
    ignored: BTreeSet<String>,
    warnings: Vec<String>,
    /// Jobs made so far, which take cores in turn.
    made: usize,
}

impl Planner<'_> {
    fn add(&mut self, section: &Section) -> Result<(), JobFileError> {
        let mut draft = Draft::default();
        let failed = |setting: &Setting, error: String| {
            let (place, option) = (setting.place.clone(), setting.key.clone());
            JobFileError::Option { place, option, error }
        };
        // It holds for all of the section, wherever it stands.
        let mut units = Units::USUAL;
        for setting in section.settings.iter().filter(|setting| setting.key == "kb_base") {
            units = Units::parse(setting.value.as_deref().unwrap_or_default())
                .map_err(|error| failed(setting, error))?;
        }
        for setting in &section.settings {
            match draft.apply(setting, units) {
                Ok(Taken::Applied) => {}
                Ok(Taken::Ignored) => {
                    self.ignored.insert(setting.key.clone());
                }
                Err(error) => return Err(failed(setting, error)),
            }
        }
        let name = draft.name.clone().unwrap_or_else(|| section.name.clone());
        let failed =
            |error: String| JobFileError::Job { place: section.place.clone(), job: name.clone(), error };
        if draft.is_flat && draft.depth > 1 {
            let depth = draft.depth;
            self.warn(
                &section.place,
                &name,
                &format!("its ioengine has one I/O outstanding, so iodepth={depth} is 1"),
            );
            draft.depth = 1;
        }
        let is_first_of_stage = self.stages.is_empty() || draft.stonewall;
        if is_first_of_stage {
            self.stages.push(Stage::default());
        }
        for copy in 0..draft.numjobs {
            let job = self.job(&name, &draft, copy).map_err(failed)?;
            // There is a stage: the first section begins one.
            if let Some(stage) = self.stages.last_mut() {
                let is_new_group = copy == 0 && draft.new_group;
                stage.add(job, draft.group_reporting, is_new_group);
            }
        }
        Ok(())
    }

    fn warn(&mut self, place: &str, name: &str, words: &str) {
        self.warnings.push(format!("{place}: job {name:?}: {words}"));
    }

    fn job(&mut self, name: &str, draft: &Draft, copy: u16) -> Parsed<Job> {
        let trace = draft.trace.rules(copy, self.defaults.target.is_some()).map(Trace::of).transpose();
        let trace = trace.map_err(|error| error.to_string())?;
        let target = match (&self.defaults.target, &trace) {
            (Some(target), _) => target.clone(),
            (None, Some(trace)) => target_of_trace(name, draft, trace)?,
            (None, None) => target(name, draft, copy)?,
        };
        let [read_sizes, write_sizes] = sizes(draft);
        let offset = u64::from(copy)
            .checked_mul(draft.offset_increment)
            .and_then(|more| more.checked_add(draft.offset));
        let offset = offset.ok_or("its offset is too large")?;
        let size = draft.size.or(draft.file_size).filter(|_| draft.percentages.2.is_none());
        let [offset_percent, increment] = [draft.percentages.0, draft.percentages.1].map(u16::from);
        let offset_percent = copy.checked_mul(increment).and_then(|more| more.checked_add(offset_percent));
        let offset_percent = offset_percent.filter(|percent| *percent <= 100);
        let offset_percent = offset_percent.ok_or("its offset is beyond the end")?;
        if draft.verify
            && draft.writes()
            && draft.numjobs > 1
            && increment == 0
            && (draft.filename.is_some() || self.defaults.target.is_some())
            && size.is_none_or(|size| draft.offset_increment < size)
        {
            return Err(
                "copies that verify what they write need an offset_increment of at least their size".into()
            );
        }
        let io_bytes = io_bytes(draft, size)?;
        let cores = match &draft.cores {
            Some(cores) => cores[usize::from(copy) % cores.len()],
            None => *self
                .defaults
                .cores
                .get(self.made % self.defaults.cores.len().max(1))
                .ok_or("no core to run on")?,
        };
        self.made += 1;
        let (rate_iops, read_percent) = rate(draft, [&read_sizes, &write_sizes])?;
        if rate_iops.is_some() && !draft.think_time.is_zero() {
            return Err("a rate and thinktime don't go together".into());
        }
        let (mode, verify_state) = (draft.mode, draft.verify_state(name, copy)?);
        let passes = !draft.time_based && size.or(draft.io_size).is_none();
        let job = Job {
            name: name.to_owned(),
            target,
            mode,
            read_percent,
            random_percent: draft.one_of(draft.random_percent, "percentage_random")?.unwrap_or(100),
            align: draft.one_of(draft.align, "blockalign")?,
            read_sizes,
            write_sizes,
            record: draft.trace.record(copy),
            walk: Walk { again: draft.again, zones: draft.zones.walk()?, ..draft.walk },
            distribution: draft.distribution,
            depth: draft.depth,
            lanes: 1,
            cores: vec![cores],
            offset,
            size,
            percentages: (offset_percent, draft.percentages.2),
            start_delay: draft.start_delay,
            ramp: draft.ramp,
            time: draft.runtime.unwrap_or(NO_LIMIT),
            io_bytes,
            io_count: draft.number_ios,
            // Without a size once through all that there is.
            passes: passes.then_some(draft.loops),
            rate_iops,
            arrivals: draft.arrivals,
            think_time: draft.think_time,
            fua: draft.fua,
            flush_every: draft.flush_every,
            verify: draft.verify,
            read_back: draft.read_back,
            verify_state,
            steady: draft.steady.filter(|_| !draft.steady_window.is_zero()).map(|steady| SteadyState {
                window: draft.steady_window,
                after: draft.steady_after,
                ..steady
            }),
            ends_all: draft.ends_all,
            percentiles: draft.percentiles.clone(),
            // Each copy has a sequence of its own.
            seed: draft.seed.unwrap_or(self.defaults.seed).wrapping_add(u64::from(copy)),
            busy: self.defaults.busy,
            ..Job::new(Target::File { path: PathBuf::new(), direct: false })
        };
        let job = match trace {
            Some(_) if draft.verify_only || draft.loops > 1 => {
                return Err("a trace is replayed once, and does not verify".into());
            }
            // Its files say how large they are; the job ends with the trace.
            Some(trace) => trace.instead_of_load(Job { size: None, io_bytes: draft.io_size, ..job }),
            None => job,
        };
        if !draft.verify_only {
            return Ok(job);
        }
        if !draft.verify {
            return Err("verify_only needs verify".into());
        }
        // Once through everything that the job would have written, and nothing is written.
        let (write_sizes, passes) = (job.write_sizes.clone(), Some(1));
        Ok(Job {
            mode: Mode::Read,
            walk: Walk::default(),
            read_percent: 100,
            read_sizes: write_sizes,
            io_bytes: None,
            io_count: None,
            passes,
            rate_iops: None,
            time: NO_LIMIT,
            ramp: Duration::ZERO,
            ..job
        })
    }
}

impl Draft {
    /// Whether it writes data.
    fn writes(&self) -> bool {
        !self.verify_only && self.mode.writes(self.read_percent)
    }

    /// Of a value by direction the one that the mode uses.
    fn one_of<T: Copy + PartialEq>(
        &self,
        by_direction: super::values::ByDirection<T>,
        option: &str,
    ) -> Parsed<Option<T>> {
        let [read, write, trim] = by_direction;
        match (self.mode, read_percent(self)) {
            (Mode::Trim | Mode::Randtrim, _) => Ok(trim),
            (_, 100) => Ok(read),
            (_, 0) => Ok(write),
            _ if read == write => Ok(read),
            _ => {
                Err(format!("{option} of reads and of writes can't differ in one job here; give each a job"))
            }
        }
    }

    /// Where what verification knows is kept, under fio's name for it.
    fn verify_state(&self, name: &str, copy: u16) -> Parsed<Option<PathBuf>> {
        let (save, load) = (self.save_state, self.load_state);
        let is_used = self.verify && if self.writes() { save } else { load };
        if self.verify && self.writes() && load {
            return Err("verify_state_load is for a job that only reads, or has verify_only".into());
        }
        Ok(is_used.then(|| format!("local-{}-{copy}-verify.state", name.replace('/', ".")).into()))
    }
}

impl Stage {
    fn add(&mut self, job: Job, is_grouped: bool, is_new_group: bool) {
        let next = self.report_as.iter().max().map_or(0, |last| last + 1);
        // The group that is open is that of the last job that was grouped.
        let entry = match self.open_group.filter(|_| is_grouped && !is_new_group) {
            Some(open) => open,
            None => next,
        };
        if is_grouped {
            self.open_group = Some(entry);
        } else if is_new_group {
            self.open_group = None;
        }
        self.jobs.push(job);
        self.report_as.push(entry);
    }
}

/// How many bytes end the job; None when time or the number of I/Os alone does.
fn io_bytes(draft: &Draft, size: Option<u64>) -> Parsed<Option<u64>> {
    match (draft.time_based, draft.runtime) {
        (true, None) => Err("time_based needs a runtime".into()),
        (true, _) => Ok(None),
        _ => Ok(draft.io_size.or(size).map(|bytes| bytes.saturating_mul(draft.loops))),
    }
}

fn read_percent(draft: &Draft) -> u8 {
    match draft.mode {
        Mode::Read | Mode::Randread => 100,
        Mode::Rw | Mode::Randrw => draft.read_percent,
        _ => 0,
    }
}

/// Sizes of reads, and of what else the job does.
fn sizes(draft: &Draft) -> [SizeSplit; 2] {
    let [read, write, trim] =
        draft.sizes.clone().map(|sizes| sizes.unwrap_or_else(|| SizeSplit(vec![(4096, 100)])));
    match draft.mode {
        Mode::Trim | Mode::Randtrim => [trim.clone(), trim],
        _ => [read, write],
    }
}

fn mean(sizes: &SizeSplit) -> f64 {
    sizes.0.iter().map(|(bytes, share)| f64::from(*bytes) * f64::from(*share) / 100.0).sum()
}

/// I/Os due each second, and the percentage of reads among them. Rates of reads and writes stand as they are, as in
/// fio, whatever the mix was meant to be.
fn rate(draft: &Draft, sizes: [&SizeSplit; 2]) -> Parsed<(Option<f64>, u8)> {
    let of = |direction: usize, size: f64| {
        let by_iops = draft.rate_iops[direction].map(|rate| rate as f64);
        let by_bytes = draft.rate_bytes[direction].map(|rate| rate as f64 / size);
        by_iops.into_iter().chain(by_bytes).reduce(f64::min)
    };
    let (reads, writes, trims) = (of(0, mean(sizes[0])), of(1, mean(sizes[1])), of(2, mean(sizes[1])));
    let percent = read_percent(draft);
    match (draft.mode, percent) {
        (Mode::Trim | Mode::Randtrim, _) => Ok((trims, percent)),
        (_, 100) => Ok((reads, percent)),
        (_, 0) => Ok((writes, percent)),
        _ => match (reads, writes) {
            (None, None) => Ok((None, percent)),
            (Some(reads), Some(writes)) => {
                let all = reads + writes;
                let percent = (reads / all * 100.0).round().clamp(1.0, 99.0);
                let off = (all * percent / 100.0 - reads).abs();
                if off > 0.05 * reads.min(writes) {
                    return Err(
                        "the rates of reads and writes are too far apart for one job; give each a job".into(),
                    );
                }
                Ok((Some(all), percent as u8))
            }
            _ => Err("a rate for reads or writes alone can't be done here; give each a job".into()),
        },
    }
}

/// What `filename` names, or the file that fio would make up.
fn target(name: &str, draft: &Draft, copy: u16) -> Parsed<Target> {
    if let Some(name) = draft.filename.as_deref().filter(|name| is_address(name)) {
        return name.replace("\\:", ":").parse::<Target>().map_err(|error| error.to_string());
    }
    let path = match &draft.filename {
        Some(filename) => one_path(filename)?,
        None => {
            let format = draft.filename_format.as_deref().unwrap_or("$jobname.$jobnum.$filenum");
            let file = format.replace("$jobnum", &copy.to_string()).replace("$filenum", "0");
            PathBuf::from(file.replace("$jobname", &name.replace('/', ".")))
        }
    };
    let path = match &draft.directory {
        Some(directory) if path.is_relative() => one_path(directory)?.join(path),
        _ => path,
    };
    Ok(Target::File { path, direct: draft.direct })
}

/// What a trace is replayed on: what the job says, or the file that the trace names.
fn target_of_trace(name: &str, draft: &Draft, trace: &Trace) -> Parsed<Target> {
    let said = draft.trace.redirect.clone().or_else(|| draft.filename.clone());
    let file = said.or_else(|| trace.summary.file.as_ref().map(|file| file.replace(':', "\\:")));
    // A name that is no address is a path, in which colons are marked.
    let file = match &trace.summary.file {
        Some(own) if is_address(own) && file.as_deref() == Some(&own.replace(':', "\\:")) => {
            Some(own.clone())
        }
        _ => file,
    };
    target(name, &Draft { filename: file, ..draft.clone() }, 0)
}

/// A path, in which a colon is written `\:`.
fn one_path(text: &str) -> Parsed<PathBuf> {
    if text.replace("\\:", "").contains(':') {
        return Err(format!("{text:?} is a list; a job has one file here, so give each a job"));
    }
    if text == "-" {
        return Err("standard input is no target".into());
    }
    Ok(text.replace("\\:", ":").into())
}
