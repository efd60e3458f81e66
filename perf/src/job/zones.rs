//! A distribution by zones: what command lines and job files say of it, and what is drawn from.

use serde::Serialize;

/// Zones of a range, one behind the other: shares of the I/Os and of the range, in hundredths. Both add up to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Zones {
    parts: [(u8, u8); MOST_ZONES],
    count: usize,
}

/// Most zones of a distribution.
const MOST_ZONES: usize = 16;

impl Zones {
    /// Reads `50/5:30/15:20/80`: half of the I/Os go to the first twentieth, and so on. What is left out is an equal
    /// part of the rest.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut given: Vec<[Option<u8>; 2]> = Vec::new();
        for part in text.split(':') {
            let (ios, size) = part.split_once('/').unwrap_or((part, ""));
            let share = |text: &str| match text.trim() {
                "" => Ok(None),
                text => text.parse::<u8>().map(Some).map_err(|_| format!("{text:?} is not a percentage")),
            };
            given.push([share(ios)?, share(size)?]);
        }
        if given.len() > MOST_ZONES {
            return Err(format!("more than {MOST_ZONES} zones"));
        }
        let mut zones = Self { parts: [(0, 0); MOST_ZONES], count: given.len() };
        let wrong = || format!("the shares of {text:?} don't add up to 100");
        for side in 0..2 {
            let sum: u32 = given.iter().filter_map(|part| part[side].map(u32::from)).sum();
            let open = given.iter().filter(|part| part[side].is_none()).count() as u32;
            let rest = 100u32.checked_sub(sum).filter(|rest| open > 0 || *rest == 0).ok_or_else(wrong)?;
            let mut more = if open > 0 { rest % open } else { 0 };
            for (part, zone) in given.iter().zip(&mut zones.parts) {
                // At most 100.
                let share = part[side].unwrap_or_else(|| {
                    let one = u32::from(more > 0);
                    more -= one;
                    (rest / open.max(1) + one) as u8
                });
                if side == 0 { zone.0 = share } else { zone.1 = share }
            }
        }
        if zones.parts().iter().any(|(ios, size)| *ios > 0 && *size == 0) {
            return Err(format!("{text:?} has I/Os for a zone without a size"));
        }
        Ok(zones)
    }

    /// Shares of the I/Os and of the range, from its start on.
    pub fn parts(&self) -> &[(u8, u8)] {
        &self.parts[..self.count]
    }
}

impl std::fmt::Display for Zones {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (ios, size)) in self.parts().iter().enumerate() {
            write!(f, "{}{ios}/{size}", if index > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}
