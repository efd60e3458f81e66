//! A bounded table of what is outstanding, so that commands are known by small numbers and nothing is allocated
//! once it has grown to its working size. Each channel owns its own.

/// At most `limit` entries, each under a number that stays its own until it is removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slab<T> {
    /// An empty table for at most `limit` entries.
    pub(crate) fn new(limit: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), limit }
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes an entry in; gives it back when the table is full.
    pub(crate) fn insert(&mut self, entry: T) -> Result<u32, T> {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(entry);
            return Ok(index);
        }
        if self.places.len() >= self.limit {
            return Err(entry);
        }
        self.places.push(Some(entry));
        // Room for every number to come back, so that `remove` never allocates.
        if self.free.capacity() < self.places.capacity() {
            self.free.reserve(self.places.capacity());
        }
        Ok((self.places.len() - 1) as u32)
    }

    /// The entry under a number.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    /// The number of the first entry that `is_it`. Looks at all of them: for what is rare.
    pub(crate) fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        self.places.iter().position(|place| place.as_ref().is_some_and(&is_it)).map(|index| index as u32)
    }

    /// Removes the entry under a number.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(entry)
    }

    /// Removes all entries; each comes with its number.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (u32, T)> {
        self.free.clear();
        let places = std::mem::take(&mut self.places);
        (0..).zip(places).filter_map(|(index, place)| Some((index, place?)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets a channel accept without bound, or mix up two commands' numbers.
    #[test]
    fn numbers_are_unique_bounded_and_reused() {
        let mut slab = Slab::new(2);
        let (a, b) = (slab.insert('a').unwrap(), slab.insert('b').unwrap());
        assert!(a != b);
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!((slab.remove(a), slab.remove(a), slab.len()), (Some('a'), None, 1));
        assert_eq!(slab.insert('d'), Ok(a));
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
        assert_eq!(slab.drain().count(), 2);
        assert_eq!(slab.len(), 0);
    }
}
