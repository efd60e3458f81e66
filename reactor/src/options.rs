//! How many reactors, on which cores, how they wait, with how much memory.
//!
//! Plain values, checked when parsed or when [`Reactors::start`](crate::Reactors::start) uses them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::memory::PoolOptions;

/// Cores that a list may name: 0 to this number, less one.
const MAX_CORE: usize = 1024;

/// The cores that reactors are pinned to, one reactor each, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList {
    places: Vec<Option<usize>>,
}

impl CoreList {
    /// Reads a list of cores (`0,2-3`, `[0,2-3]`) or a mask (`0x3`).
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn parse(text: &str) -> Result<CoreList, CoreListError> {
        let trimmed = text.trim();
        let inner = match (trimmed.strip_prefix('['), trimmed.strip_suffix(']')) {
            (None, None) => trimmed,
            (Some(_), Some(_)) => &trimmed[1..trimmed.len() - 1],
            _ => return Err(CoreListError::Bracket(text.to_owned())),
        };
        let hexadecimal = inner.strip_prefix("0x").or_else(|| inner.strip_prefix("0X"));
        let cores = match hexadecimal {
            Some(digits) => parse_mask(digits)?,
            None => parse_list(inner)?,
        };
        if cores.is_empty() {
            return Err(CoreListError::Empty);
        }
        Ok(CoreList { places: cores.into_iter().map(Some).collect() })
    }

    /// Reactors pinned to these cores.
    ///
    /// # Errors
    /// When there is none, one is named twice, or one is out of range.
    pub fn pinned(cores: impl IntoIterator<Item = usize>) -> Result<CoreList, CoreListError> {
        let mut list = Vec::new();
        for core in cores {
            add_core(&mut list, core)?;
        }
        if list.is_empty() {
            return Err(CoreListError::Empty);
        }
        Ok(CoreList { places: list.into_iter().map(Some).collect() })
    }

    /// `count` reactors (at least one) that the kernel may move between cores: for tests and shared machines.
    pub fn floating(count: usize) -> CoreList {
        CoreList { places: vec![None; count.max(1)] }
    }

    /// Number of reactors.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// For each reactor, the core it is pinned to, or `None` for one that floats.
    pub fn iter(&self) -> impl Iterator<Item = Option<usize>> + '_ {
        self.places.iter().copied()
    }
}

impl Default for CoreList {
    /// One reactor, on the first core that the calling thread may use: not core 0 where somebody has set others aside for
    /// this process.
    fn default() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        CoreList { places: vec![Some(cores.iter().map(|core| core.id).min().unwrap_or(0))] }
    }
}

impl FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        CoreList::parse(text)
    }
}

impl fmt::Display for CoreList {
    /// As `parse` reads it; floating reactors as `*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match place {
                Some(core) => write!(f, "{comma}{core}")?,
                None => write!(f, "{comma}*")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a list of cores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreListError {
    /// No core is named.
    #[error("no core is named; write a list as 0,2-3 or a mask as 0x3")]
    Empty,
    /// One bracket without the other.
    #[error("'{0}' has a bracket without its partner")]
    Bracket(String),
    /// Not a number where one should be.
    #[error("'{0}' is not a core's number; write a list as 0,2-3 or a mask as 0x3")]
    NotANumber(String),
    /// A mask with something else than hexadecimal digits.
    #[error("'0x{0}' is not a hexadecimal mask")]
    NotAMask(String),
    /// A range that ends before it starts.
    #[error("the range {0}-{1} ends before it starts")]
    Backwards(usize, usize),
    /// The same core twice.
    #[error("core {0} is named twice")]
    Twice(usize),
    /// A core beyond what any machine has.
    #[error("core {0} is out of range: the highest is {max}", max = MAX_CORE - 1)]
    OutOfRange(usize),
}

fn parse_list(text: &str) -> Result<Vec<usize>, CoreListError> {
    let mut cores = Vec::new();
    if text.trim().is_empty() {
        return Ok(cores);
    }
    for part in text.split(',') {
        match part.split_once('-') {
            None => add_core(&mut cores, parse_core(part)?)?,
            Some((first, last)) => {
                let (first, last) = (parse_core(first)?, parse_core(last)?);
                if last < first {
                    return Err(CoreListError::Backwards(first, last));
                }
                for core in first..=last {
                    add_core(&mut cores, core)?;
                }
            }
        }
    }
    Ok(cores)
}

fn parse_core(text: &str) -> Result<usize, CoreListError> {
    let text = text.trim();
    // `usize::from_str` takes a sign, which a core has not.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CoreListError::NotANumber(text.to_owned()));
    }
    text.parse().map_err(|_| CoreListError::OutOfRange(usize::MAX))
}

fn parse_mask(digits: &str) -> Result<Vec<usize>, CoreListError> {
    let bad = || CoreListError::NotAMask(digits.to_owned());
    if digits.is_empty() {
        return Err(bad());
    }
    let mut cores = Vec::new();
    for (position, digit) in digits.chars().rev().enumerate() {
        let bits = digit.to_digit(16).ok_or_else(bad)?;
        for bit in (0..4).filter(|bit| bits >> bit & 1 == 1) {
            add_core(&mut cores, position * 4 + bit)?;
        }
    }
    Ok(cores)
}

fn add_core(cores: &mut Vec<usize>, core: usize) -> Result<(), CoreListError> {
    if core >= MAX_CORE {
        return Err(CoreListError::OutOfRange(core));
    }
    if cores.contains(&core) {
        return Err(CoreListError::Twice(core));
    }
    cores.push(core);
    Ok(())
}

/// What a reactor does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Polls on; the core is always busy.
    Busy,
    /// Polls on for `spin` after the latest work, then sleeps until an event, a message or a timer.
    Adaptive {
        /// How long it polls without work before it sleeps.
        spin: Duration,
    },
}

impl Default for Wait {
    /// Adaptive, spinning for 50 µs.
    fn default() -> Self {
        Wait::Adaptive { spin: Duration::from_micros(50) }
    }
}

/// How to start reactors.
#[derive(Clone, Debug, Default)]
pub struct ReactorOptions {
    /// One reactor for each.
    pub cores: CoreList,
    /// How they wait.
    pub wait: Wait,
    /// Memory of each.
    pub pool: PoolOptions,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cores(text: &str) -> Result<Vec<usize>, CoreListError> {
        CoreList::parse(text).map(|list| list.iter().flatten().collect())
    }

    // Without it a documented way to write cores could stop working unnoticed.
    #[test]
    fn lists_and_masks_are_read() {
        assert_eq!(cores("0"), Ok(vec![0]));
        assert_eq!(cores("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(cores(" [3, 0-1] "), Ok(vec![3, 0, 1]));
        assert_eq!(cores("0x3"), Ok(vec![0, 1]));
        assert_eq!(cores("[0X8001]"), Ok(vec![0, 15]));
        assert_eq!(cores("0x10000000000000000"), Ok(vec![64]));
        assert_eq!(CoreList::parse("2-3").map(|list| list.to_string()), Ok("2,3".to_owned()));
    }

    // Without it a typing mistake could start reactors on cores that nobody asked for.
    #[test]
    fn bad_lists_are_refused_with_their_reason() {
        use CoreListError::*;
        for (text, error) in [
            ("", Empty),
            ("[]", Empty),
            ("0x0", Empty),
            ("0x", NotAMask(String::new())),
            ("0xg", NotAMask("g".to_owned())),
            ("a", NotANumber("a".to_owned())),
            ("1,", NotANumber(String::new())),
            ("-1", NotANumber(String::new())),
            ("+1", NotANumber("+1".to_owned())),
            ("1-2-3", NotANumber("2-3".to_owned())),
            ("3-1", Backwards(3, 1)),
            ("1,1", Twice(1)),
            ("0-2,1", Twice(1)),
            ("1024", OutOfRange(1024)),
            ("0-99999999999999999999", OutOfRange(usize::MAX)),
            ("0-18446744073709551615", OutOfRange(1024)),
            ("[0", Bracket("[0".to_owned())),
            ("0]", Bracket("0]".to_owned())),
        ] {
            assert_eq!(cores(text), Err(error), "{text:?}");
        }
    }

    // Without it a target that is told nothing does not start in a container that has been given other cores than 0.
    #[test]
    fn the_default_core_is_one_that_may_be_used() {
        let last = core_affinity::get_core_ids().unwrap().into_iter().max_by_key(|core| core.id).unwrap();
        let confined = move || {
            assert!(core_affinity::set_for_current(last));
            CoreList::default()
        };
        let list = std::thread::spawn(confined).join().unwrap();
        assert_eq!(list.iter().collect::<Vec<_>>(), [Some(last.id)]);
    }
}
