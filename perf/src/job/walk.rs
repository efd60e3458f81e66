//! How a job goes through its range where it does more than go on from one I/O to the next, or anywhere: holes, runs and
//! zones, with fio's meaning.

use serde::Serialize;

/// Holes, runs and zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Walk {
    /// Of a sequence: bytes between the end of an I/O and the start of the next one; below zero it goes backwards.
    pub stride: i64,
    /// Of random places: each of so many I/Os that there is one place drawn for.
    pub run: u32,
    /// The I/Os of a run go to one place, rather than on behind one another.
    pub again: bool,
    /// The range in zones, one after the other.
    pub zones: Option<ZoneWalk>,
}

/// Zones, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ZoneWalk {
    /// Bytes that are moved in a zone before the next one's turn comes.
    pub size: u64,
    /// Bytes of a zone.
    pub range: u64,
    /// Bytes from the end of a zone to the start of the next one.
    pub skip: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self { stride: 0, run: 1, again: false, zones: None }
    }
}

impl Walk {
    /// Whether there are no holes, runs or zones.
    pub fn is_plain(&self) -> bool {
        let Self { stride, run, zones, .. } = self;
        *stride == 0 && *run == 1 && zones.is_none()
    }

    /// Reads what follows the mode: bytes between the I/Os of a sequence, whose size is read by `size`, or the I/Os of a
    /// run at random places.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(
        text: &str,
        is_random: bool,
        size: impl Fn(&str) -> Result<u64, String>,
    ) -> Result<Self, String> {
        if is_random {
            let run = text.parse::<u32>().ok().filter(|run| *run > 0);
            let run = run.ok_or_else(|| format!("{text:?} is not a number of I/Os for each random place"))?;
            return Ok(Self { run, ..Self::default() });
        }
        let (digits, sign) = text.strip_prefix('-').map_or((text, 1), |digits| (digits, -1));
        let bytes = if digits.trim_start_matches('0').is_empty() && !digits.is_empty() {
            0
        } else {
            size(digits).map_err(|_| format!("{text:?} is not a number of bytes between I/Os"))?
        };
        let bytes = i64::try_from(bytes).map_err(|_| format!("{text:?} is too large"))?;
        Ok(Self { stride: sign * bytes, ..Self::default() })
    }
}

impl std::fmt::Display for Walk {
    /// What follows the mode; nothing, where nothing has to.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self { stride: 0, run: 1, .. } => Ok(()),
            Self { stride: 0, run, .. } => write!(f, ":{run}"),
            Self { stride, .. } => write!(f, ":{stride}"),
        }
    }
}
