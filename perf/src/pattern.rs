//! Content that tells which write put it there.

/// Fills `bytes` with the content of version `version` of unit `unit`.
pub fn fill(bytes: &mut [u8], unit: u64, version: u32) {
    let mut state = start(unit, version);
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(unit | 1);
        let value = state.to_le_bytes();
        word.copy_from_slice(&value[..word.len()]);
    }
}

/// The first byte at which `bytes` is not what [`fill`] gives; `from` is where `bytes` starts within the unit, a
/// multiple of 8.
pub struct Checker {
    state: u64,
    unit: u64,
    at: usize,
}

impl Checker {
    /// Checks a unit from its start.
    pub fn new(unit: u64, version: u32) -> Self {
        Self { state: start(unit, version), unit, at: 0 }
    }

    /// Checks the next bytes (a multiple of 8 but for the last).
    ///
    /// # Errors
    /// The byte offset, within the unit, of the first wrong word.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), usize> {
        for word in bytes.chunks(8) {
            self.state = self.state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(self.unit | 1);
            if self.state.to_le_bytes()[..word.len()] != *word {
                return Err(self.at);
            }
            self.at += word.len();
        }
        Ok(())
    }
}

fn start(unit: u64, version: u32) -> u64 {
    unit.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(version) << 32 | u64::from(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it an old or misplaced block could pass for the right one.
    #[test]
    fn units_and_versions_differ() {
        let mut bytes = [0; 64];
        fill(&mut bytes, 5, 2);
        assert_eq!(Checker::new(5, 2).check(&bytes), Ok(()));
        assert_eq!(Checker::new(5, 3).check(&bytes), Err(0));
        assert_eq!(Checker::new(6, 2).check(&bytes), Err(0));
        bytes[40] ^= 1;
        let mut checker = Checker::new(5, 2);
        assert_eq!((checker.check(&bytes[..32]), checker.check(&bytes[32..])), (Ok(()), Err(40)));
    }
}
