//! A bounded table whose entries are known by small numbers.
//!
//! Owns its entries. Invariant: a number is its entry's until that is removed, and nothing is allocated once the table
//! has grown to its working size. The I/O queue keeps requests and channels in such tables.

/// At most `limit` entries.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slab<T> {
    /// An empty table for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { places: Vec::new(), free: Vec::new(), limit }
    }

    /// Entries in the table.
    #[inline]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is room for another entry.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.places.len() < self.limit
    }

    /// Takes an entry in; gives it back when the table is full.
    #[inline]
    pub fn insert(&mut self, entry: T) -> Result<u32, T> {
        match self.reserve() {
            Some(index) => {
                self.fill(index, entry);
                Ok(index)
            }
            None => Err(entry),
        }
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        if self.places.len() >= self.limit {
            return None;
        }
        self.places.push(None);
        // Room for every number to come back, so that `remove` never allocates.
        if self.free.capacity() < self.places.capacity() {
            self.free.reserve(self.places.capacity());
        }
        Some((self.places.len() - 1) as u32)
    }

    /// A number for an entry that [`Self::fill`] brings at once; `None` when the table is full.
    #[inline(always)]
    pub fn reserve(&mut self) -> Option<u32> {
        match self.free.pop() {
            Some(index) => Some(index),
            None => self.grow(),
        }
    }

    /// Brings the entry of a reserved number.
    #[inline(always)]
    pub fn fill(&mut self, index: u32, entry: T) {
        debug_assert!(self.places[index as usize].is_none(), "a reserved place is empty");
        self.places[index as usize] = Some(entry);
    }

    /// The entry under a number.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.as_ref()
    }

    /// The entry under a number.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    /// Removes the entry under a number.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let entry = self.places.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(entry)
    }

    /// Drops the entry under a number.
    #[inline]
    pub fn discard(&mut self, index: u32) {
        if let Some(place @ Some(_)) = self.places.get_mut(index as usize) {
            *place = None;
            self.free.push(index);
        }
    }

    /// All entries with their numbers. Looks at every place: for what is rare.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| Some((index as u32, place.as_ref()?)))
    }

    /// The same, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        self.places.iter_mut().enumerate().filter_map(|(index, place)| Some((index as u32, place.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a queue accept without bound, or mix up two commands' numbers.
    #[test]
    fn numbers_are_unique_bounded_and_reused() {
        let mut slab = Slab::new(2);
        let a = slab.insert('a').ok().filter(|_| slab.has_room());
        let b = slab.insert('b').ok().filter(|_| !slab.has_room());
        assert!(a.is_some() && b.is_some() && a != b);
        assert_eq!(slab.insert('c'), Err('c'));
        let a = a.unwrap_or(u32::MAX);
        assert_eq!((slab.remove(a), slab.remove(a), slab.len()), (Some('a'), None, 1));
        assert_eq!(slab.insert('d'), Ok(a));
        assert_eq!(slab.iter().map(|(_, entry)| *entry).collect::<Vec<_>>(), ['d', 'b']);
    }
}
