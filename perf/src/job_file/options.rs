//! What each option of a job file means.
//!
//! Invariant: an option that is not named here is an error. [`IGNORED`] holds those that have no meaning here and
//! change neither which I/O is made nor when it ends.

use std::path::PathBuf;
use std::time::Duration;

use super::ignored::IGNORED;
use super::refused;
use super::syntax::Setting;
use super::values::{self, Amount, ByDirection, Parsed, Units};
use crate::job::{
    Arrivals, Distribution, Mode, SizeSplit, SteadyState, Walk, ZoneWalk, Zones, parse_percentiles,
};
use crate::trace::Rules;
use crate::trace_options::power;

/// Engines with which fio keeps `iodepth` I/Os outstanding; the I/O itself is made by this program in any case.
const DEEP_ENGINES: &[&str] =
    &["libaio", "io_uring", "io_uring_cmd", "posixaio", "sledge", "solarisaio", "spdk", "windowsaio"];

/// Engines with which fio has one I/O outstanding whatever `iodepth` says.
const FLAT_ENGINES: &[&str] = &["sync", "psync", "vsync", "pvsync", "pvsync2"];

/// What verify takes in fio; here it is always a header and CRC-32C.
const CHECKS: &[&str] = &[
    "md5",
    "crc64",
    "crc32c",
    "crc32c-intel",
    "crc32",
    "crc16",
    "crc7",
    "xxhash",
    "sha512",
    "sha256",
    "sha1",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "meta",
    "pattern",
];

/// The options of one job as they stand after all its settings.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: Option<String>,
    pub mode: Mode,
    pub read_percent: u8,
    pub sizes: ByDirection<SizeSplit>,
    pub walk: Walk,
    pub again: bool,
    pub zones: DraftZones,
    pub trace: DraftTrace,
    pub distribution: Distribution,
    pub depth: u16,
    pub is_flat: bool,
    pub numjobs: u16,
    pub filename: Option<String>,
    pub filename_format: Option<String>,
    pub directory: Option<String>,
    pub direct: bool,
    pub offset: u64,
    pub offset_increment: u64,
    pub size: Option<u64>,
    pub file_size: Option<u64>,
    /// Percentages of the target in place of offset, of what copies add to it, and of size.
    pub percentages: (u8, u8, Option<u8>),
    pub random_percent: ByDirection<u8>,
    pub align: ByDirection<u32>,
    pub io_size: Option<u64>,
    pub number_ios: Option<u64>,
    pub loops: u64,
    pub runtime: Option<Duration>,
    pub time_based: bool,
    pub ramp: Duration,
    pub start_delay: Duration,
    pub rate_iops: ByDirection<u64>,
    pub rate_bytes: ByDirection<u64>,
    pub arrivals: Arrivals,
    pub think_time: Duration,
    pub fua: bool,
    pub flush_every: Option<u32>,
    pub verify: bool,
    pub verify_only: bool,
    pub read_back: bool,
    pub save_state: bool,
    pub load_state: bool,
    pub steady: Option<SteadyState>,
    pub steady_window: Duration,
    pub steady_after: Duration,
    pub ends_all: bool,
    pub percentiles: Vec<f64>,
    pub cores: Option<Vec<usize>>,
    pub seed: Option<u64>,
    pub stonewall: bool,
    pub new_group: bool,
    pub group_reporting: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            name: None,
            mode: Mode::Read,
            read_percent: 50,
            sizes: [None, None, None],
            walk: Walk::default(),
            again: false,
            zones: DraftZones::default(),
            trace: DraftTrace::default(),
            distribution: Distribution::Uniform,
            depth: 1,
            is_flat: false,
            numjobs: 1,
            filename: None,
            filename_format: None,
            directory: None,
            direct: false,
            offset: 0,
            offset_increment: 0,
            size: None,
            file_size: None,
            percentages: (0, 0, None),
            random_percent: [None; 3],
            align: [None; 3],
            io_size: None,
            number_ios: None,
            loops: 1,
            runtime: None,
            time_based: false,
            ramp: Duration::ZERO,
            start_delay: Duration::ZERO,
            rate_iops: [None; 3],
            rate_bytes: [None; 3],
            arrivals: Arrivals::Even,
            think_time: Duration::ZERO,
            fua: false,
            flush_every: None,
            verify: false,
            verify_only: false,
            read_back: true,
            save_state: false,
            load_state: false,
            steady: None,
            steady_window: Duration::ZERO,
            steady_after: Duration::ZERO,
            ends_all: false,
            percentiles: Vec::new(),
            cores: None,
            seed: None,
            stonewall: false,
            new_group: false,
            group_reporting: false,
        }
    }
}

/// A trace to replay and one to write, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct DraftTrace {
    /// Files with colons between, one for each copy of the job.
    pub read: Option<String>,
    pub write: Option<PathBuf>,
    pub redirect: Option<String>,
    pub no_stall: bool,
    pub time_scale: Option<u32>,
    pub scale: Option<u64>,
    pub align: u64,
    pub skip: [bool; 4],
}

impl DraftTrace {
    /// What a copy of the job replays, if it does; `is_redirected` when its target is said elsewhere.
    pub fn rules(&self, copy: u16, is_redirected: bool) -> Option<Rules> {
        let files: Vec<&str> = self.read.as_deref()?.split(':').collect();
        let path = files[usize::from(copy) % files.len()].into();
        Some(Rules {
            is_redirected: is_redirected || self.redirect.is_some(),
            no_stall: self.no_stall,
            time_scale: self.time_scale.unwrap_or(100),
            scale: self.scale.unwrap_or(1),
            align: self.align,
            skip: self.skip,
            ..Rules::new(path)
        })
    }

    /// Where a copy of the job writes what it sends.
    pub fn record(&self, copy: u16) -> Option<PathBuf> {
        let mut name = self.write.clone()?.into_os_string();
        if copy > 0 {
            name.push(format!(".{copy}"));
        }
        Some(name.into())
    }
}

/// Zones as far as they are known; 0 is fio's own value.
#[derive(Clone, Copy, Debug, Default)]
pub struct DraftZones {
    pub is_strided: Option<bool>,
    pub size: u64,
    pub range: u64,
    pub skip: u64,
}

impl DraftZones {
    /// The zones of a job; none where it has none.
    ///
    /// # Errors
    /// What fio refuses, too.
    pub fn walk(&self) -> Parsed<Option<ZoneWalk>> {
        match (self.is_strided, self.size) {
            (Some(true), 0) => Err("zonemode=strided needs a zonesize".into()),
            (Some(true), size) => {
                let range = if self.range > 0 { self.range } else { size };
                Ok(Some(ZoneWalk { size, range, skip: self.skip }))
            }
            (_, size) if size > 0 => Err("a zonesize needs zonemode=strided".into()),
            _ => Ok(None),
        }
    }
}

/// What became of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was applied.
    Applied,
    /// It has no meaning here.
    Ignored,
}

impl Draft {
    /// Applies one setting, whose sizes are in these units.
    ///
    /// # Errors
    /// When the option or its value is unknown, or can't be done here: why, in words.
    pub fn apply(&mut self, setting: &Setting, units: Units) -> Parsed<Taken> {
        let value = setting.value.as_deref();
        let text = value.ok_or_else(|| "a value is missing".to_owned());
        let second = Duration::from_secs(1);
        match setting.key.as_str() {
            // The comment of a section, and what is the only value there is here.
            "description" => {}
            "nrfiles" | "nr_files" | "thinktime_blocks" => only(text?, &["1"])?,
            "zonemode" => self.zones.is_strided = Some(zone_mode(text?)?),
            "zonesize" => self.zones.size = units.whole(text?)?,
            "zonerange" => self.zones.range = units.whole(text?)?,
            "zoneskip" => self.zones.skip = units.whole(text?)?,
            "read_iolog" => self.trace.read = Some(text?.to_owned()),
            "write_iolog" => self.trace.write = Some(PathBuf::from(text?)),
            "replay_redirect" => self.trace.redirect = Some(text?.to_owned()),
            "replay_no_stall" => self.trace.no_stall = values::switch(value)?,
            "replay_time_scale" => self.trace.time_scale = Some(units.positive(text?)?),
            "replay_scale" => self.trace.scale = Some(units.positive(text?)?),
            "replay_align" => self.trace.align = text.and_then(|text| power(units.positive(text)?, text))?,
            "replay_skip" => self.trace.skip = Rules::parse_skip(text?)?,
            "rw_sequencer" => self.again = sequencer(text?)?,
            "exit_what" => only(text?, &["group", "stonewall"])?,
            // It was looked for before.
            "kb_base" => {}
            "rate_process" => self.arrivals = arrivals(text?)?,
            "name" => self.name = Some(text?.to_owned()),
            "rw" | "readwrite" => (self.mode, self.walk) = pattern(text?, units)?,
            "rwmixread" => self.read_percent = percent(text?)?,
            "rwmixwrite" => self.read_percent = 100 - percent(text?)?,
            "bs" | "blocksize" => {
                self.take_sizes(values::by_direction(text?, |text| units.fixed_size(text))?);
            }
            "bsrange" | "blocksize_range" => {
                self.take_sizes(values::by_direction(text?, |text| units.size_range(text))?);
            }
            "bssplit" => self.take_sizes(values::by_direction(text?, |text| units.size_split(text))?),
            "blockalign" | "ba" => self.align = values::by_direction(text?, |text| units.positive(text))?,
            "random_distribution" => self.distribution = distribution(text?)?,
            "percentage_random" => self.random_percent = values::by_direction(text?, percent)?,
            "iodepth" => self.depth = units.positive(text?)?,
            "ioengine" => self.is_flat = engine_is_flat(text?)?,
            "numjobs" => self.numjobs = units.positive(text?)?,
            "filename" => self.filename = Some(text?.to_owned()),
            "filename_format" => self.filename_format = Some(text?.to_owned()),
            "directory" => self.directory = Some(text?.to_owned()),
            "direct" => self.direct = values::switch(value)?,
            "buffered" => self.direct = !values::switch(value)?,
            "offset" => (self.offset, self.percentages.0) = part(units.amount(text?)?),
            "offset_increment" => (self.offset_increment, self.percentages.1) = part(units.amount(text?)?),
            "size" => (self.size, self.percentages.2) = size(units.amount(text?)?)?,
            "filesize" | "file_size" => self.file_size = Some(units.positive(text?)?),
            "io_size" | "io_limit" => self.io_size = Some(units.positive(text?)?),
            "number_ios" => self.number_ios = Some(units.positive(text?)?),
            "loops" => self.loops = units.positive(text?)?,
            "runtime" | "timeout" => {
                self.runtime = Some(values::time(text?, second)?).filter(|runtime| !runtime.is_zero());
            }
            "time_based" => self.time_based = values::switch(value)?,
            "ramp_time" => self.ramp = values::time(text?, second)?,
            "startdelay" | "start_delay" => self.start_delay = values::time(text?, second)?,
            "steadystate" | "ss" => self.steady = Some(SteadyState::parse(text?)?),
            "steadystate_duration" | "ss_dur" => self.steady_window = values::time(text?, second)?,
            "steadystate_ramp_time" | "ss_ramp" => self.steady_after = values::time(text?, second)?,
            "exitall" => self.ends_all = values::switch(value)?,
            "rate_iops" => self.rate_iops = values::by_direction(text?, |text| units.positive(text))?,
            "rate" => self.rate_bytes = values::by_direction(text?, |text| units.positive(text))?,
            "thinktime" => self.think_time = values::time(text?, Duration::from_micros(1))?,
            "sync" => self.fua = is_sync(text?)?,
            "fsync" | "fdatasync" => {
                self.flush_every = Some(units.whole::<u32>(text?)?).filter(|every| *every > 0);
            }
            "verify" => self.verify = verify(text?)?,
            "verify_only" => self.verify_only = values::switch(value)?,
            "do_verify" => self.read_back = values::switch(value)?,
            "verify_state_save" => self.save_state = values::switch(value)?,
            "verify_state_load" => self.load_state = values::switch(value)?,
            "percentile_list" => self.percentiles = parse_percentiles(text?)?,
            "cpus_allowed" => self.cores = Some(values::cores(text?)?),
            "cpumask" => self.cores = Some(values::core_mask(text?)?),
            "randseed" => self.seed = Some(units.whole(text?)?),
            "randrepeat" => self.seed = if values::switch(value)? { None } else { Some(any_seed()) },
            "stonewall" | "wait_for_previous" => self.stonewall = values::switch(value)?,
            "new_group" => self.new_group = values::switch(value)?,
            "group_reporting" => self.group_reporting = values::switch(value)?,
            key if IGNORED.contains(&key) => return Ok(Taken::Ignored),
            key => return Err(refused::reason(key)),
        }
        Ok(Taken::Applied)
    }

    /// A part that is left out keeps what it was.
    fn take_sizes(&mut self, sizes: ByDirection<SizeSplit>) {
        for (kept, given) in self.sizes.iter_mut().zip(sizes) {
            if given.is_some() {
                *kept = given;
            }
        }
    }
}

fn only(text: &str, values: &[&str]) -> Parsed<()> {
    match values.contains(&text) {
        true => Ok(()),
        false => Err(format!("{text:?} can't be done here, only {:?}", values.join(", "))),
    }
}

/// Bytes and hundredths.
fn part(amount: Amount) -> (u64, u8) {
    match amount {
        Amount::Bytes(bytes) => (bytes, 0),
        Amount::Percent(percent) => (0, percent),
    }
}

/// The same of a size, which is not zero; all of it is neither.
fn size(amount: Amount) -> Parsed<(Option<u64>, Option<u8>)> {
    match amount {
        Amount::Bytes(0) | Amount::Percent(0) => Err("must not be 0".into()),
        Amount::Percent(100) => Ok((None, None)),
        Amount::Percent(percent) => Ok((None, Some(percent))),
        Amount::Bytes(bytes) => Ok((Some(bytes), None)),
    }
}

/// A mode, and behind a colon bytes between I/Os, or I/Os for each random place.
fn pattern(text: &str, units: Units) -> Parsed<(Mode, Walk)> {
    let (name, rest) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let mode = mode(name.trim())?;
    let walk = rest.map(|rest| Walk::parse(rest.trim(), mode.is_random(), |text| units.size(text)));
    Ok((mode, walk.transpose()?.unwrap_or_default()))
}

fn zone_mode(text: &str) -> Parsed<bool> {
    match text {
        "none" => Ok(false),
        "strided" => Ok(true),
        _ => Err(format!("{text:?} can't be done here, only none and strided")),
    }
}

fn sequencer(text: &str) -> Parsed<bool> {
    match text {
        "sequential" => Ok(false),
        "identical" => Ok(true),
        _ => Err(format!("{text:?} is neither sequential nor identical")),
    }
}

fn mode(text: &str) -> Parsed<Mode> {
    Ok(match text {
        "read" => Mode::Read,
        "write" => Mode::Write,
        "randread" => Mode::Randread,
        "randwrite" => Mode::Randwrite,
        "rw" | "readwrite" => Mode::Rw,
        "randrw" => Mode::Randrw,
        "trim" => Mode::Trim,
        "randtrim" => Mode::Randtrim,
        "trimwrite" => Mode::Trimwrite,
        "randtrimwrite" => Mode::Randtrimwrite,
        _ => {
            return Err(format!(
                "{text:?} is none of read, write, randread, randwrite, rw, randrw, trim, randtrim, trimwrite, \
                 randtrimwrite"
            ));
        }
    })
}

fn arrivals(text: &str) -> Parsed<Arrivals> {
    match text {
        "linear" => Ok(Arrivals::Even),
        "poisson" => Ok(Arrivals::Poisson),
        _ => Err(format!("{text:?} is neither linear nor poisson")),
    }
}

fn percent(text: &str) -> Parsed<u8> {
    let percent = text.trim_end_matches('%').parse::<u8>().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| format!("{text:?} is not a percentage"))
}

fn distribution(text: &str) -> Parsed<Distribution> {
    let (kind, parameter) = text.split_once(':').unwrap_or((text, ""));
    let number = || {
        let number = parameter.parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite());
        number.ok_or_else(|| format!("{text:?}: {parameter:?} is no parameter of {kind}"))
    };
    match kind {
        "random" => Ok(Distribution::Uniform),
        // fio's values where none is given.
        "zipf" if parameter.is_empty() => Ok(Distribution::Zipf(1.1)),
        "pareto" if parameter.is_empty() => Ok(Distribution::Pareto(0.2)),
        "zipf" if number()? != 1.0 => Ok(Distribution::Zipf(number()?)),
        "zipf" => Err("zipf with a theta of 1 is not defined".into()),
        "pareto" if number()? < 1.0 => Ok(Distribution::Pareto(number()?)),
        "pareto" => Err(format!("{text:?}: pareto takes a number between 0 and 1")),
        "zoned" if parameter.contains(',') => Err(format!(
            "{text:?}: zones of reads and of writes can't differ in one job here; give each a job"
        )),
        "zoned" => Zones::parse(parameter).map(Distribution::Zoned),
        _ => Err(format!("{text:?} is none of random, zipf:THETA, pareto:H, zoned:IOS/SIZE:...")),
    }
}

fn engine_is_flat(text: &str) -> Parsed<bool> {
    // What comes after a colon is the path of an engine that fio would load.
    let (name, path) = text.split_once(':').unwrap_or((text, ""));
    match name {
        name if DEEP_ENGINES.contains(&name) => Ok(false),
        name if FLAT_ENGINES.contains(&name) => Ok(true),
        "external" if ["libsledge_fio.so", "spdk_nvme"].iter().any(|known| path.ends_with(known)) => {
            Ok(false)
        }
        name if name.ends_with("/spdk_nvme") => Ok(false),
        _ => Err(format!(
            "{text:?} can't be done here; there are {} and, with one I/O at a time, {}",
            DEEP_ENGINES.join(", "),
            FLAT_ENGINES.join(", ")
        )),
    }
}

fn is_sync(text: &str) -> Parsed<bool> {
    match text {
        "sync" | "dsync" => Ok(true),
        text => values::switch(Some(text)),
    }
}

fn verify(text: &str) -> Parsed<bool> {
    match text {
        "0" | "none" => Ok(false),
        text if CHECKS.contains(&text) => Ok(true),
        _ => Err(format!(
            "{text:?} can't be done here; every other check of fio stands for the header with CRC-32C"
        )),
    }
}

/// `randrepeat=0` wants another sequence each time.
fn any_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32)
}
