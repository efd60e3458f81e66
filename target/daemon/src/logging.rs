//! The log: one line an event on standard error, as text or JSON, with a level that can be changed while
//! running and flags that let single parts of the program say everything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// SPDK's levels. This program's events of level info count as notices, debug as info, trace as debug.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd, and goes on.
    Warning,
    /// What a person running this wants to know.
    #[default]
    Notice,
    /// What somebody looking for a fault wants to know.
    Info,
    /// Everything.
    Debug,
}

const LEVELS: [(Level, &str, LevelFilter); 5] = [
    (Level::Error, "ERROR", LevelFilter::ERROR),
    (Level::Warning, "WARNING", LevelFilter::WARN),
    (Level::Notice, "NOTICE", LevelFilter::INFO),
    (Level::Info, "INFO", LevelFilter::DEBUG),
    (Level::Debug, "DEBUG", LevelFilter::TRACE),
];

impl Level {
    /// Its name in requests.
    pub fn name(self) -> &'static str {
        LEVELS[self as usize].1
    }

    fn filter(self) -> LevelFilter {
        LEVELS[self as usize].2
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        LEVELS
            .iter()
            .find(|(_, name, _)| name.eq_ignore_ascii_case(text))
            .map(|(level, _, _)| *level)
            .ok_or_else(|| format!("{text:?} is not ERROR, WARNING, NOTICE, INFO or DEBUG"))
    }
}

/// The flags, and the crates that each makes say everything.
const FLAGS: [(&str, &str); 5] = [
    ("bdev", "sledge_bdev"),
    ("nvme", "sledge_nvme"),
    ("nvmf", "sledge_nvmf"),
    ("reactor", "sledge_reactor"),
    ("rpc", "sledge_target"),
];

#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    level: Level,
    flags: [bool; FLAGS.len()],
}

impl Settings {
    fn targets(&self) -> Targets {
        let raised = FLAGS.iter().zip(self.flags).filter(|(_, on)| *on);
        raised.fold(Targets::new().with_default(self.level.filter()), |targets, ((_, name), _)| {
            targets.with_target(*name, LevelFilter::TRACE)
        })
    }
}

/// Changes what is logged.
#[derive(Debug)]
pub struct LogControl {
    settings: Mutex<Settings>,
    handle: Option<reload::Handle<Targets, Registry>>,
}

impl LogControl {
    /// Starts logging for the whole process; once. A second call (in a test) gets a control that only remembers.
    pub fn install(level: Level, json: bool) -> LogControl {
        let settings = Settings { level, ..Settings::default() };
        let (filter, handle) = reload::Layer::new(settings.targets());
        let output = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        let installed = if json {
            tracing_subscriber::registry().with(output.json().with_filter(filter)).try_init()
        } else {
            tracing_subscriber::registry().with(output.with_filter(filter)).try_init()
        };
        LogControl { settings: Mutex::new(settings), handle: installed.is_ok().then_some(handle) }
    }

    fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut settings);
        if let Some(handle) = &self.handle {
            // Fails only when the subscriber is gone, and with it the log.
            let _ = handle.reload(settings.targets());
        }
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        self.settings().level
    }

    /// Sets the level.
    pub fn set_level(&self, level: Level) {
        self.change(|settings| settings.level = level);
    }

    /// All flags.
    pub fn flags(&self) -> BTreeMap<&'static str, bool> {
        FLAGS.iter().map(|(name, _)| *name).zip(self.settings().flags).collect()
    }

    /// Sets or clears a flag, or `all` of them.
    ///
    /// # Errors
    /// The names that there are, when it is none of them.
    pub fn set_flag(&self, flag: &str, on: bool) -> Result<(), String> {
        let chosen: Vec<usize> =
            (0..FLAGS.len()).filter(|index| flag == "all" || FLAGS[*index].0 == flag).collect();
        if chosen.is_empty() {
            let names: Vec<_> = FLAGS.iter().map(|(name, _)| *name).collect();
            return Err(format!("{flag:?} is not all, {}", names.join(", ")));
        }
        self.change(|settings| chosen.iter().for_each(|index| settings.flags[*index] = on));
        Ok(())
    }
}

/// Has panics logged, each as one event with its place and, where `RUST_BACKTRACE` asks for it, the way there.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let reason = payload.downcast_ref::<&str>().copied();
        let reason = reason.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let reason = reason.unwrap_or("for a reason that can't be shown");
        let way = Backtrace::capture();
        let way = (way.status() == BacktraceStatus::Captured).then(|| way.to_string());
        tracing::error!(thread = thread.name(), place, way, "panicked: {reason}");
    }));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it: a level or flag set by a client might not be the one that is reported, or take no effect.
    #[test]
    fn levels_and_flags_are_kept() {
        for (level, name, _) in LEVELS {
            assert_eq!(Level::from_str(name).unwrap(), level);
            assert_eq!(level.name(), name);
        }
        assert!(Level::from_str("LOUD").is_err());
        let control = LogControl { settings: Mutex::default(), handle: None };
        control.set_flag("nvmf", true).unwrap();
        control.set_level(Level::Error);
        assert_eq!(
            control.flags().into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect::<Vec<_>>(),
            ["nvmf"]
        );
        let targets = control.settings().targets();
        assert!(targets.would_enable("sledge_nvmf::target", &tracing::Level::TRACE));
        assert!(!targets.would_enable("sledge_bdev", &tracing::Level::WARN));
        control.set_flag("all", false).unwrap();
        assert!(control.flags().values().all(|on| !on));
        assert!(control.set_flag("nosuch", true).is_err());
    }
}
