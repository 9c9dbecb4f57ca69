//! The cache against a list of who holds what, over random histories; and what a hash alone must not decide.

use std::hash::{BuildHasherDefault, Hasher};

use proptest::prelude::*;

use super::*;

/// Gives everything the same hash.
#[derive(Default)]
struct Constant;

impl Hasher for Constant {
    fn finish(&self) -> u64 {
        7
    }

    fn write(&mut self, _: &[u8]) {}
}

type Colliding = BuildHasherDefault<Constant>;

fn tenant(name: &str) -> Arc<Scope> {
    Arc::new(Scope::Tenant { name: name.into(), salt: None })
}

/// A text of which one symbol fills a page.
fn text(symbols: &[u8]) -> Vec<u32> {
    symbols.iter().flat_map(|symbol| [u32::from(*symbol); PAGE_TOKENS]).collect()
}

/// Someone who has read a text: the pages of it, in order.
struct Reader {
    scope: Arc<Scope>,
    symbols: Vec<u8>,
    pages: Vec<PageId>,
}

/// What is written in the pages: for each, everything up to its end. In place of keys and values.
type Content = Vec<(Arc<Scope>, Vec<u8>)>;

/// Reads a text as a sequence does: shares what is held, computes and offers the rest. `None` if pages ran out.
fn read<S: BuildHasher>(
    cache: &mut PrefixCache<S>,
    content: &mut Content,
    (scope, symbols): (Arc<Scope>, &[u8]),
) -> Reader {
    let tokens = text(symbols);
    let mut pages: Vec<PageId> = cache.prefix(&scope, &tokens).collect();
    for (index, &page) in pages.iter().enumerate() {
        cache.share(page);
        assert_eq!(content[page as usize], (scope.clone(), symbols[..=index].to_vec()), "a stranger's page");
    }
    for (index, tokens) in tokens.chunks(PAGE_TOKENS).enumerate().skip(pages.len()) {
        let Some(page) = cache.allocate() else { break };
        content[page as usize] = (scope.clone(), symbols[..=index].to_vec());
        pages.push(cache.offer(&scope, (pages.last().copied(), page), tokens));
    }
    Reader { scope, symbols: symbols[..pages.len()].to_vec(), pages }
}

fn leave<S: BuildHasher>(cache: &mut PrefixCache<S>, reader: Reader) {
    reader.pages.into_iter().rev().for_each(|page| cache.release(page));
}

fn assert_sound<S: BuildHasher>(cache: &PrefixCache<S>, readers: &[Reader], content: &Content) {
    let mut owners = vec![0; cache.pool().total()];
    for reader in readers {
        for (index, &page) in reader.pages.iter().enumerate() {
            owners[page as usize] += 1;
            let expected = (reader.scope.clone(), reader.symbols[..=index].to_vec());
            assert_eq!(content[page as usize], expected, "a page that is in use was written to");
        }
    }
    let counted: Vec<u32> = (0..owners.len() as u32).map(|page| cache.pool().owners(page)).collect();
    assert_eq!(owners, counted, "owners are exact");
    for (key, &page) in &cache.index {
        assert_eq!(cache.entries[page as usize].as_ref().map(|entry| entry.key), Some(*key));
    }
    assert_eq!(cache.index.len(), cache.entries.iter().flatten().count());
    assert!(cache.pool().idle() <= cache.index.len(), "only what can be found is kept");
}

#[derive(Clone, Debug)]
enum Act {
    Read(u8, Vec<u8>),
    Leave(prop::sample::Index),
    Clear,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        10 => (0u8..2, prop::collection::vec(0u8..3, 1..6)).prop_map(|(who, what)| Act::Read(who, what)),
        9 => any::<prop::sample::Index>().prop_map(Act::Leave),
        1 => Just(Act::Clear),
    ];
    prop::collection::vec(act, 0..80)
}

fn play<S: BuildHasher>(mut cache: PrefixCache<S>, acts: &[Act]) {
    let scopes = [tenant("a"), tenant("b")];
    let mut content: Content = vec![(scopes[0].clone(), Vec::new()); cache.pool().total()];
    let mut readers: Vec<Reader> = Vec::new();
    for act in acts {
        match act {
            Act::Read(who, what) => {
                let scope = scopes[usize::from(*who)].clone();
                readers.push(read(&mut cache, &mut content, (scope, what)));
            }
            Act::Leave(index) if !readers.is_empty() => {
                let reader = readers.swap_remove(index.index(readers.len()));
                leave(&mut cache, reader);
            }
            Act::Leave(_) => {}
            Act::Clear => {
                cache.clear();
                assert_eq!((cache.index.len(), cache.pool().idle()), (0, 0));
            }
        }
        assert_sound(&cache, &readers, &content);
    }
    readers.drain(..).for_each(|reader| leave(&mut cache, reader));
    assert_eq!(cache.pool().used(), 0, "no page leaks");
}

proptest! {
    #[test]
    fn nobody_gets_a_page_of_other_tokens_and_owners_are_exact(pages in 1usize..16, acts in acts()) {
        play(PrefixCache::new(pages), &acts);
        let same = || Colliding::default();
        play(PrefixCache::with_hashes(pages, [same(), same()]), &acts);
    }
}

#[test]
fn what_was_read_is_found_by_its_own_scope_alone_until_its_memory_is_needed() {
    let mut cache = PrefixCache::new(4);
    let mut content = vec![(tenant(""), Vec::new()); 4];
    let (a, b) = (tenant("a"), tenant("b"));
    let salted = Arc::new(Scope::Tenant { name: "a".into(), salt: Some("x".to_owned()) });
    let held =
        |cache: &PrefixCache, scope: &Arc<Scope>, symbols: &[u8]| cache.prefix(scope, &text(symbols)).count();
    let reader = read(&mut cache, &mut content, (a.clone(), &[1, 2, 3]));
    leave(&mut cache, reader);
    assert_eq!((cache.pool().used(), cache.pool().idle(), cache.pool().available()), (0, 3, 4));
    assert_eq!(held(&cache, &a, &[1, 2, 3, 4]), 3);
    assert_eq!(held(&cache, &a, &[1, 3]), 1);
    assert_eq!(held(&cache, &a, &[2, 3]), 0, "the same tokens behind others are something else");
    assert_eq!((held(&cache, &b, &[1]), held(&cache, &salted, &[1])), (0, 0));

    // Two pages are needed and one is free: the end of what was kept goes first.
    let reader = read(&mut cache, &mut content, (b.clone(), &[9, 9]));
    assert_eq!(held(&cache, &a, &[1, 2, 3]), 2);
    leave(&mut cache, reader);
    // What was used again stays longer than what was not.
    let reader = read(&mut cache, &mut content, (a.clone(), &[1, 2]));
    leave(&mut cache, reader);
    let reader = read(&mut cache, &mut content, (b.clone(), &[8]));
    assert_eq!((held(&cache, &a, &[1, 2]), held(&cache, &b, &[9, 9])), (2, 1));
    leave(&mut cache, reader);
}

#[test]
fn two_who_compute_the_same_at_the_same_time_end_with_one_page() {
    let mut cache = PrefixCache::new(4);
    let scope = tenant("a");
    let tokens = text(&[5]);
    let pages = [cache.allocate().unwrap(), cache.allocate().unwrap()];
    let [first, second] = pages.map(|page| cache.offer(&scope, (None, page), &tokens));
    assert_eq!((first, second), (pages[0], pages[0]));
    assert_eq!((cache.pool().owners(first), cache.pool().used()), (2, 1));
}
