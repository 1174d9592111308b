/// Set of other regions, by their positions in the order of their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::server) struct RegionSet(u32);

impl RegionSet {
    /// Maximum number of regions.
    pub(in crate::server) const MAX: usize = u32::BITS as usize;

    /// Returns true if there are no regions in the set.
    pub(in crate::server) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(in crate::server) fn contains(self, position: usize) -> bool {
        self.0 & 1 << position != 0
    }

    /// Returns the set as bits, the first region lowest.
    pub(in crate::server) fn bits(self) -> u32 {
        self.0
    }

    #[cfg(test)]
    pub(in crate::server) fn of(bits: u32) -> Self {
        Self(bits)
    }
}

impl FromIterator<usize> for RegionSet {
    fn from_iter<I: IntoIterator<Item = usize>>(positions: I) -> Self {
        Self(positions.into_iter().fold(0, |set, position| set | 1 << position))
    }
}
