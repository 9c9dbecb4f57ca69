//! Which pages of a pool are in use, by how many owners, and which are worth keeping when nobody is left.

#[cfg(test)]
mod tests;

/// Number of a page in its pool.
pub type PageId = u32;

/// Hands out page numbers and counts their owners. It holds no bytes: whoever owns the pool knows what a page is.
///
/// A page that nobody owns is either free or *idle*: its content was worth [keeping](PagePool::keep) and can be
/// [shared](PagePool::share) again, until the pool runs out of free pages and hands out the page that has been idle for
/// longest. The page freed last is handed out first, so that a small load stays in a small part of the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePool {
    pages: Vec<Page>,
    free: Vec<PageId>,
    idle: Idle,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Page {
    owners: u32,
    kept: bool,
    /// Neighbours in the list of idle pages.
    older: Option<PageId>,
    newer: Option<PageId>,
}

/// The ends of the list of idle pages, which is threaded through the pages themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Idle {
    oldest: Option<PageId>,
    newest: Option<PageId>,
    count: usize,
}

impl PagePool {
    /// A pool of `pages` free pages.
    pub fn new(pages: u32) -> Self {
        Self {
            pages: vec![Page::default(); pages as usize],
            free: (0..pages).rev().collect(),
            idle: Idle::default(),
        }
    }

    /// Pages in all.
    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Pages that nobody owns: all of them can be allocated.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.count
    }

    /// Pages of these whose content is kept for as long as it can be.
    pub fn idle(&self) -> usize {
        self.idle.count
    }

    /// Pages that hold nothing.
    pub fn free(&self) -> &[PageId] {
        &self.free
    }

    /// Pages that somebody owns.
    pub fn used(&self) -> usize {
        self.total() - self.available()
    }

    /// Takes a page, with one owner: a free one, or else the one that has been idle for longest, whose content is lost.
    pub fn allocate(&mut self) -> Option<PageId> {
        let page = self.free.pop().or_else(|| {
            let oldest = self.idle.oldest?;
            self.unlink(oldest);
            Some(oldest)
        })?;
        self.pages[page as usize] = Page { owners: 1, ..Page::default() };
        Some(page)
    }

    /// Adds an owner to a page in use, or to an idle one.
    ///
    /// # Panics
    /// If the page is free: sharing it would resurrect memory that may be handed out again.
    pub fn share(&mut self, page: PageId) {
        let Page { owners, kept, .. } = self.pages[page as usize];
        assert!(owners > 0 || kept, "page {page} is shared after it was released");
        if owners == 0 {
            self.unlink(page);
        }
        self.pages[page as usize].owners += 1;
    }

    /// Removes an owner; the last one makes the page free, or idle if it is to be kept.
    ///
    /// # Panics
    /// If nobody owns the page: a double release would hand it to two owners.
    pub fn release(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        assert!(entry.owners > 0, "page {page} is released twice");
        entry.owners -= 1;
        match (entry.owners, entry.kept) {
            (0, true) => self.link(page),
            (0, false) => self.free.push(page),
            _ => {}
        }
    }

    /// Makes a page in use idle, rather than free, when its last owner releases it.
    ///
    /// # Panics
    /// If nobody owns the page: it may hold anything.
    pub fn keep(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        assert!(entry.owners > 0, "page {page} is kept after it was released");
        entry.kept = true;
    }

    /// Keeps the page no longer; an idle one becomes free.
    pub fn forget(&mut self, page: PageId) {
        let Page { owners, kept, .. } = self.pages[page as usize];
        if kept && owners == 0 {
            self.unlink(page);
            self.free.push(page);
        }
        self.pages[page as usize].kept = false;
    }

    /// Owners of a page.
    pub fn owners(&self, page: PageId) -> u32 {
        self.pages[page as usize].owners
    }

    /// Appends a page to the list of idle ones, as the newest.
    fn link(&mut self, page: PageId) {
        let before = self.idle.newest.replace(page);
        match before {
            Some(before) => self.pages[before as usize].newer = Some(page),
            None => self.idle.oldest = Some(page),
        }
        let entry = &mut self.pages[page as usize];
        (entry.older, entry.newer) = (before, None);
        self.idle.count += 1;
    }

    /// Takes a page out of the list of idle ones.
    fn unlink(&mut self, page: PageId) {
        let entry = &mut self.pages[page as usize];
        let (older, newer) = (entry.older.take(), entry.newer.take());
        match older {
            Some(older) => self.pages[older as usize].newer = newer,
            None => self.idle.oldest = newer,
        }
        match newer {
            Some(newer) => self.pages[newer as usize].older = older,
            None => self.idle.newest = older,
        }
        self.idle.count -= 1;
    }
}
