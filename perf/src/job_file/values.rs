//! Values of options: sizes, times, switches, lists by direction.
//!
//! Errors are the words that follow file, line and option.

use std::time::Duration;

use crate::job::SizeSplit;

/// What a value is worth, or why it has none.
pub type Parsed<T> = Result<T, String>;

/// Reads, writes, deallocations; None is fio's default.
pub type ByDirection<T> = [Option<T>; 3];

/// What k, m, g, t, p are powers of: fio's `kb_base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units(u64);

impl Units {
    /// fio's own: 4k is 4096 bytes and, the other way round than everywhere else, 4KiB is 4000.
    pub const USUAL: Self = Self(1024);
    /// Those of the standards: 4k is 4000 bytes, 4KiB is 4096.
    pub const STANDARD: Self = Self(1000);

    /// What `kb_base` says.
    pub fn parse(text: &str) -> Parsed<Self> {
        match text {
            "1024" => Ok(Self::USUAL),
            "1000" => Ok(Self::STANDARD),
            _ => Err(format!("{text:?} is neither 1024 nor 1000")),
        }
    }

    /// A number of bytes such as `4k`, `1M`, `2GiB`, `512`.
    pub fn size(self, text: &str) -> Parsed<u64> {
        let wrong = || format!("{text:?} is not a number of bytes");
        let lower = text.to_ascii_lowercase();
        let (number, unit) = split_unit(&lower);
        let power = match unit.bytes().next() {
            None => 0,
            Some(b'b') if unit == "b" => 0,
            Some(letter) => 1 + b"kmgtp".iter().position(|known| *known == letter).ok_or_else(wrong)?,
        };
        // As fio has it, it is the `ib` that turns the base round, not the `i`.
        let base = match unit.get(1..).unwrap_or_default() {
            "" | "b" | "i" => self.0,
            "ib" => {
                if self == Self::USUAL {
                    Self::STANDARD.0
                } else {
                    Self::USUAL.0
                }
            }
            _ => return Err(wrong()),
        };
        let number = match number.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => number.parse(),
        };
        // At most 5.
        let factor = base.checked_pow(power as u32);
        let bytes = number.ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        bytes.ok_or_else(wrong)
    }

    /// A number, perhaps with a unit of fio's (`10k` is 10240).
    pub fn whole<T: TryFrom<u64>>(self, text: &str) -> Parsed<T> {
        let number = self.size(text).map_err(|_| format!("{text:?} is not a whole number"))?;
        T::try_from(number).map_err(|_| format!("{text} is too large"))
    }

    /// A number that is not zero.
    pub fn positive<T: TryFrom<u64> + PartialEq + Default>(self, text: &str) -> Parsed<T> {
        let number = self.whole::<T>(text)?;
        if number == T::default() { Err("must not be 0".into()) } else { Ok(number) }
    }

    /// A part of a file: bytes, or hundredths.
    pub fn amount(self, text: &str) -> Parsed<Amount> {
        match text.strip_suffix('%') {
            Some(number) => {
                let percent = number.parse::<u8>().ok().filter(|percent| *percent <= 100);
                percent.map(Amount::Percent).ok_or_else(|| format!("{text:?} is not a percentage"))
            }
            None => self.size(text).map(Amount::Bytes),
        }
    }

    /// `bs=4k`.
    pub fn fixed_size(self, text: &str) -> Parsed<SizeSplit> {
        Ok(SizeSplit(vec![(self.positive(text)?, 100)]))
    }

    /// `bsrange=4k-16k`: multiples of the smallest size, all alike.
    pub fn size_range(self, text: &str) -> Parsed<SizeSplit> {
        let Some((least, most)) = text.split_once(['-', ':']) else { return self.fixed_size(text) };
        let (least, most): (u32, u32) = (self.positive(least.trim())?, self.positive(most.trim())?);
        if least > most {
            return Err(format!("{text:?} ends before it begins"));
        }
        let count = most / least;
        let count = u8::try_from(count).ok().filter(|count| *count <= 100);
        let count = count.ok_or("more than a hundred sizes; give bssplit")?;
        let (share, rest) = (100 / count, 100 % count);
        let sizes = (1..=count).map(|factor| (least * u32::from(factor), share + u8::from(factor <= rest)));
        Ok(SizeSplit(sizes.collect()))
    }

    /// `bssplit=4k/10:64k/50:32k/40`; sizes without a share have the rest in equal parts.
    pub fn size_split(self, text: &str) -> Parsed<SizeSplit> {
        let mut sizes = Vec::new();
        for part in text.split(':') {
            let (bytes, share) = part.split_once('/').unwrap_or((part, ""));
            let share = match share.trim() {
                "" => None,
                share => Some(share.parse::<u8>().map_err(|_| format!("{share:?} is not a percentage"))?),
            };
            sizes.push((self.positive(bytes.trim())?, share));
        }
        let given: u32 = sizes.iter().filter_map(|(_, share)| share.map(u32::from)).sum();
        let open = sizes.iter().filter(|(_, share)| share.is_none()).count() as u32;
        let rest = 100u32.checked_sub(given).filter(|rest| open > 0 || *rest == 0);
        let rest = rest.ok_or_else(|| format!("the shares of {text:?} don't add up to 100"))?;
        let mut more = if open > 0 { rest % open } else { 0 };
        let mut split = Vec::new();
        for (bytes, share) in sizes {
            let share = share.map(u32::from).unwrap_or_else(|| {
                let one = u32::from(more > 0);
                more -= one;
                rest / open + one
            });
            // At most 100.
            if share > 0 {
                split.push((bytes, share as u8));
            }
        }
        Ok(SizeSplit(split))
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths.
    Percent(u8),
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = if text.starts_with("0x") { text.len() } else { 0 };
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    text.split_at(end.max(digits))
}

/// A time such as `10`, `1.5h`, `100ms`; `unit` is what a plain number counts.
pub fn time(text: &str, unit: Duration) -> Parsed<Duration> {
    let lower = text.to_ascii_lowercase();
    let (number, word) = split_unit(&lower);
    let seconds = match word {
        "" => unit.as_secs_f64(),
        "d" => 86_400.0,
        "h" => 3600.0,
        "m" | "min" => 60.0,
        "s" | "sec" => 1.0,
        "ms" | "msec" => 1e-3,
        "us" | "usec" => 1e-6,
        _ => return Err(format!("{text:?} is not a time")),
    };
    let time = number.parse::<f64>().ok().map(|number| number * seconds);
    let time = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| time.as_secs() <= 3650 * 86_400).ok_or_else(|| format!("{text:?} is not a time"))
}

/// A switch; its name alone turns it on.
pub fn switch(value: Option<&str>) -> Parsed<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("1" | "true" | "yes" | "on") => Ok(true),
        Some("0" | "false" | "no" | "off" | "none") => Ok(false),
        Some(other) => Err(format!("{other:?} is neither 1 nor 0")),
    }
}

/// A list by direction: `a` is for all, `a,b` for reads, and for writes and deallocations.
pub fn by_direction<T: Clone>(text: &str, parse: impl Fn(&str) -> Parsed<T>) -> Parsed<ByDirection<T>> {
    let one = |text: &str| if text.trim().is_empty() { Ok(None) } else { parse(text.trim()).map(Some) };
    let parts: Vec<&str> = text.split(',').collect();
    match parts.as_slice() {
        [all] => one(all).map(|value| [value.clone(), value.clone(), value]),
        [read, write] => {
            let write = one(write)?;
            Ok([one(read)?, write.clone(), write])
        }
        [read, write, trim] => Ok([one(read)?, one(write)?, one(trim)?]),
        _ => Err(format!("{text:?} has more than three parts")),
    }
}

/// Cores such as `0,2-3`.
pub fn cores(text: &str) -> Parsed<Vec<usize>> {
    let wrong = || format!("{text:?} is not a list of cores");
    let mut cores = Vec::new();
    for part in text.split([',', ':']).map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last >= 4096 {
            return Err(wrong());
        }
        cores.extend(first..=last);
    }
    cores.sort_unstable();
    cores.dedup();
    Ok(cores)
}

/// Cores by the bits of a number.
pub fn core_mask(text: &str) -> Parsed<Vec<usize>> {
    let mask: u64 = Units::USUAL.positive(text)?;
    Ok((0..64).filter(|core| mask >> core & 1 == 1).collect())
}
