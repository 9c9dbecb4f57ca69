//! Pages of keys and values, and which tokens the full ones were computed for.
//!
//! A full page is never written again, and by the engine's first promise its bytes depend on nothing but the tokens up
//! to its end. So whoever needs a page for the same tokens behind the same beginning may share it, and need not compute
//! it. A page that nobody holds any more stays until its memory is needed; the page that was needed last goes last.
//!
//! Pages are found by a hash that is chained from page to page (as in vLLM) and begins with the scope, so that scopes
//! never meet. A match of hashes alone proves nothing: the tokens are compared, and so is the page before, by a serial
//! number that is never given twice, which makes the comparison of one page a comparison of the whole beginning.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use memory::{Key, PageId, PagePool};
use tensor::PAGE_TOKENS;

use crate::tier::{Digests, Leaving};

/// Among whom pages are shared: nobody can learn, not even by the clock, what another scope has computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The requests of a tenant that carry the same salt.
    Tenant {
        /// Its name.
        name: Arc<str>,
        /// What the request says beside, such as the name of a user.
        salt: Option<String>,
    },
    /// The continuations of one request alone.
    Request(u64),
}

/// The pages of an engine. The hash is drawn afresh for each, so that nobody can prepare collisions.
#[derive(Debug)]
pub(crate) struct PrefixCache<S = RandomState> {
    pool: PagePool,
    index: HashMap<u128, PageId>,
    /// By page: what it is found by.
    entries: Vec<Option<Entry>>,
    /// By page: the tokens that it holds, if it has an entry.
    tokens: Vec<[u32; PAGE_TOKENS]>,
    /// Two hashes of 64 bits make one of 128.
    hashes: [S; 2],
    serials: u64,
    /// Names pages for good, where there is a tier below.
    digests: Option<Digests>,
    /// Pages that were handed out anew since the last look, with what they held, where that is nowhere else.
    leaving: Vec<Leaving>,
    /// Pages whose content is nowhere else, unless it has changed meanwhile.
    unsaved: Vec<PageId>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    key: u128,
    before: Before,
    serial: u64,
    /// Its name for good, and how it stands with a copy of it under that name.
    name: Option<Key>,
    copy: Copied,
}

/// How it stands with the copy of a page below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    /// There is one.
    Done,
    /// There is none, and a sequence goes on with it.
    Due,
    /// There is none, and whether anybody needs it is not known.
    Open,
}

/// What stands before a page.
#[derive(Clone, Debug, PartialEq)]
enum Before {
    /// Nothing: it is the first of its scope.
    Scope(Arc<Scope>),
    /// The page with this serial number.
    Page(u64),
}

impl PrefixCache {
    /// A cache in front of so many free pages.
    pub(crate) fn new(pages: usize) -> Self {
        Self::with_hashes(pages, [RandomState::new(), RandomState::new()])
    }
}

impl<S: BuildHasher> PrefixCache<S> {
    /// The same, whose pages have names for good.
    pub(crate) fn naming(self, digests: Option<Digests>) -> Self {
        Self { digests, ..self }
    }

    fn with_hashes(pages: usize, hashes: [S; 2]) -> Self {
        Self {
            pool: PagePool::new(u32::try_from(pages).unwrap_or(u32::MAX)),
            index: HashMap::with_capacity(pages),
            entries: vec![None; pages],
            tokens: vec![[0; PAGE_TOKENS]; pages],
            hashes,
            serials: 0,
            digests: None,
            leaving: Vec::new(),
            unsaved: Vec::new(),
        }
    }

    /// Who owns which page; pages are handed out and named here alone.
    pub(crate) fn pool(&self) -> &PagePool {
        &self.pool
    }

    /// Takes a page, if one is free or can be made free.
    pub(crate) fn allocate(&mut self) -> Option<PageId> {
        let page = self.pool.allocate()?;
        self.leaving.extend(self.unsaved(page));
        self.unname(page);
        Some(page)
    }

    /// Gives a page back.
    pub(crate) fn release(&mut self, page: PageId) {
        self.pool.release(page);
    }

    /// The page that holds `tokens` behind `last`, or at the beginning of `scope`.
    pub(crate) fn find(&self, scope: &Arc<Scope>, last: Option<PageId>, tokens: &[u32]) -> Option<PageId> {
        let (key, before) = self.place(scope, last, tokens)?;
        self.look_up(key, &before, tokens)
    }

    /// Shares a page that was found.
    pub(crate) fn share(&mut self, page: PageId) {
        self.pool.share(page);
    }

    /// How many of `tokens` are held from their beginning on, and by which pages, in order.
    pub(crate) fn prefix<'a>(
        &'a self,
        scope: &'a Arc<Scope>,
        tokens: &'a [u32],
    ) -> impl Iterator<Item = PageId> + 'a {
        let mut last = None;
        tokens.chunks_exact(PAGE_TOKENS).map_while(move |tokens| {
            last = Some(self.find(scope, last, tokens)?);
            last
        })
    }

    /// Makes the page findable that was just filled with the keys and values of `tokens` behind `last`. Returns the page
    /// to go on with: if another one holds the same already, that one is shared and this one given back.
    pub(crate) fn offer(
        &mut self,
        scope: &Arc<Scope>,
        (last, page): (Option<PageId>, PageId),
        tokens: &[u32],
    ) -> PageId {
        // What follows a page that was forgotten cannot be found, so it need not be kept.
        let Some((key, before)) = self.place(scope, last, tokens) else { return page };
        if let Some(same) = self.look_up(key, &before, tokens) {
            if same != page {
                self.pool.share(same);
                self.release(page);
            }
            return same;
        }
        // The key may belong to other tokens, or to the same behind a page that is gone. They cannot both be found.
        if let Some(other) = self.index.get(&key).copied() {
            self.unname(other);
            self.pool.forget(other);
        }
        self.serials += 1;
        let name = self.new_name(scope, last, tokens);
        if self.unsaved.len() >= 2 * self.entries.len() {
            let is_unsaved: Vec<bool> =
                (0..).zip(&self.entries).map(|(page, _)| self.unsaved(page).is_some()).collect();
            self.unsaved.retain(|page| is_unsaved[*page as usize]);
        }
        self.unsaved.extend(name.map(|_| page));
        self.index.insert(key, page);
        self.entries[page as usize] =
            Some(Entry { key, before, serial: self.serials, name, copy: Copied::Open });
        self.tokens[page as usize].copy_from_slice(tokens);
        self.pool.keep(page);
        page
    }

    /// The name for good of the content of a page.
    pub(crate) fn name(&self, page: PageId) -> Option<Key> {
        self.entries[page as usize].as_ref()?.name
    }

    fn new_name(&self, scope: &Scope, last: Option<PageId>, tokens: &[u32]) -> Option<Key> {
        let digests = self.digests.as_ref()?;
        match last {
            None => digests.name(scope, None, tokens),
            Some(last) => digests.name(scope, Some(self.name(last)?), tokens),
        }
    }

    /// Notes that the content of a page is kept below.
    pub(crate) fn saved(&mut self, page: PageId) {
        self.entries[page as usize].iter_mut().for_each(|entry| entry.copy = Copied::Done);
    }

    /// Notes that a sequence which has to give this page back will go on with it.
    pub(crate) fn note_due(&mut self, page: PageId) {
        let entry = self.entries[page as usize].as_mut().filter(|entry| entry.copy == Copied::Open);
        entry.into_iter().for_each(|entry| entry.copy = Copied::Due);
    }

    /// What a page holds, if that has a name and is nowhere else.
    fn unsaved(&self, page: PageId) -> Option<Leaving> {
        let entry = self.entries[page as usize].as_ref().filter(|entry| entry.copy != Copied::Done)?;
        let is_due = entry.copy == Copied::Due;
        Some(Leaving { page, key: entry.name?, tokens: self.tokens[page as usize].into(), is_due })
    }

    /// An unsaved page; the same one until it is [saved](Self::saved). Ends of texts come before their beginnings, which
    /// are of use to more and should be the last to go from where they are saved, too.
    pub(crate) fn next_unsaved(&mut self) -> Option<Leaving> {
        while let Some(page) = self.unsaved.last() {
            let found = self.unsaved(*page);
            if found.is_some() {
                return found;
            }
            self.unsaved.pop();
        }
        None
    }

    /// What has left since the last call; until the pages are written to, they still hold it.
    pub(crate) fn take_leaving(&mut self) -> Vec<Leaving> {
        std::mem::take(&mut self.leaving)
    }

    /// Forgets what pages hold that nobody needs. What leaves is said by [`Self::take_leaving`], as ever.
    pub(crate) fn forget_idle(&mut self) {
        for page in 0..self.pool.total() as PageId {
            if self.pool.owners(page) == 0 && self.entries[page as usize].is_some() {
                self.leaving.extend(self.unsaved(page));
                self.unname(page);
                self.pool.forget(page);
            }
        }
    }

    /// Forgets what all pages hold. Sequences keep the pages that they have.
    pub(crate) fn clear(&mut self) {
        for page in 0..self.pool.total() as PageId {
            self.unname(page);
            self.pool.forget(page);
        }
    }

    /// The key of `tokens` at their place, and what has to stand there before them.
    fn place(&self, scope: &Arc<Scope>, last: Option<PageId>, tokens: &[u32]) -> Option<(u128, Before)> {
        let Some(last) = last else {
            return Some((self.hash((&**scope, tokens)), Before::Scope(Arc::clone(scope))));
        };
        let last = self.entries[last as usize].as_ref()?;
        Some((self.hash((last.key, tokens)), Before::Page(last.serial)))
    }

    fn hash(&self, value: impl std::hash::Hash) -> u128 {
        let [high, low] = [&self.hashes[0], &self.hashes[1]].map(|hash| u128::from(hash.hash_one(&value)));
        (high << 64) | low
    }

    fn look_up(&self, key: u128, before: &Before, tokens: &[u32]) -> Option<PageId> {
        let page = *self.index.get(&key)?;
        let entry = self.entries[page as usize].as_ref()?;
        (entry.before == *before && self.tokens[page as usize] == *tokens).then_some(page)
    }

    fn unname(&mut self, page: PageId) {
        if let Some(entry) = self.entries[page as usize].take() {
            self.index.remove(&entry.key);
        }
    }
}
