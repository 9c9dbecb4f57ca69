//! Which pages of a pool are in use, and by how many owners.

#[cfg(test)]
mod tests;

/// Number of a page in its pool.
pub type PageId = u32;

/// Hands out page numbers and counts their owners. It holds no bytes: whoever owns the pool knows what a page is.
///
/// The page released last is handed out first, so that a small load stays in a small part of the memory.
#[derive(Debug)]
pub struct PagePool {
    owners: Vec<u32>,
    free: Vec<PageId>,
}

impl PagePool {
    /// A pool of `pages` free pages.
    pub fn new(pages: u32) -> Self {
        Self { owners: vec![0; pages as usize], free: (0..pages).rev().collect() }
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.owners.len()
    }

    /// Pages that nobody owns.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Pages that somebody owns.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Takes a free page, with one owner.
    pub fn allocate(&mut self) -> Option<PageId> {
        let page = self.free.pop()?;
        self.owners[page as usize] = 1;
        Some(page)
    }

    /// Adds an owner to a page in use.
    ///
    /// # Panics
    /// If nobody owns the page: sharing it would resurrect memory that may be handed out again.
    pub fn share(&mut self, page: PageId) {
        let owners = &mut self.owners[page as usize];
        assert!(*owners > 0, "page {page} is shared after it was released");
        *owners += 1;
    }

    /// Removes an owner; the last one makes the page free.
    ///
    /// # Panics
    /// If nobody owns the page: a double release would hand it to two sequences.
    pub fn release(&mut self, page: PageId) {
        let owners = &mut self.owners[page as usize];
        assert!(*owners > 0, "page {page} is released twice");
        *owners -= 1;
        if *owners == 0 {
            self.free.push(page);
        }
    }

    /// Owners of a page.
    pub fn owners(&self, page: PageId) -> u32 {
        self.owners[page as usize]
    }
}
