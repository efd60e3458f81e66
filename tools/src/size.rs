//! Sizes as people write and read them: `1G`, `512 MiB`, plain bytes. All units are powers of 1024.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Reads a size in bytes.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size, as 512M, 1G or 1.5TiB");
    let at =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(1 << (10 * power)).ok_or_else(wrong);
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(1 << 10).powi(power);
    // Beyond 2^53 a fraction is no longer exact; no one writes those.
    if bytes < 9e15 && bytes.fract() == 0.0 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A size with the unit that leaves the fewest digits.
pub fn show(bytes: u64) -> String {
    let power = (bytes.max(1).ilog2() / 10) as usize;
    let whole = bytes >> (10 * power);
    if bytes == whole << (10 * power) {
        return format!("{whole} {}", UNITS[power]);
    }
    format!("{:.1} {}", bytes as f64 / f64::from(1 << 10).powi(power as i32), UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it: a device could be made with another size than the person asked for.
    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [
            ("4096", 4096),
            ("512k", 512 << 10),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("1 gb", 1 << 30),
            ("1.5TiB", 3 << 39),
            ("64MB", 64 << 20),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "1X", "-1G", "1.2.3G", "0.3", "99999999999G", "1e3"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(show(1 << 30), "1 GiB");
        assert_eq!(show((1 << 30) + (1 << 29)), "1.5 GiB");
        assert_eq!(show(0), "0 B");
        assert_eq!(show(u64::MAX), "16.0 EiB");
    }
}
