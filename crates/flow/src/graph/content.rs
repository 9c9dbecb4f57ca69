//! What a graph must know of a value: what tells it from others, and how much memory it holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Digest, Fingerprint};

/// What a graph must know of a value.
///
/// ```
/// use flow::graph::{Content, Digest};
///
/// struct Document { title: String, words: Vec<u32> }
///
/// impl Content for Document {
///     fn feed(&self, digest: &mut Digest) {
///         self.title.feed(digest);
///         self.words.feed(digest);
///     }
///
///     fn heap_bytes(&self) -> u64 {
///         self.title.heap_bytes() + self.words.heap_bytes()
///     }
/// }
/// ```
pub trait Content {
    /// Feeds everything that tells this value from others of its type, in a fixed order. Two values that feed the same
    /// are taken for one another.
    fn feed(&self, digest: &mut Digest);

    /// Bytes that the value holds beside its own size, as far as dropping it would free them.
    fn heap_bytes(&self) -> u64;

    /// Feeds many values; numbers do it in blocks.
    #[doc(hidden)]
    fn feed_all(items: &[Self], digest: &mut Digest)
    where
        Self: Sized,
    {
        for item in items {
            item.feed(digest);
        }
    }
}

/// The fingerprint of a value; none if it is opaque.
pub(super) fn fingerprint_of<T: Content + ?Sized>(value: &T) -> Option<Fingerprint> {
    let mut digest = Digest::new();
    value.feed(&mut digest);
    digest.finish()
}

/// A value whose content cannot be told, such as an open connection: the opt-out from comparing.
///
/// As an input it differs from every other value, so setting it always counts as a change. As a result it is taken to
/// be determined by what it was computed from, so nothing behind it is spared when that changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opaque<T> {
    value: T,
    heap_bytes: u64,
}

impl<T> Opaque<T> {
    /// A value that holds `heap_bytes` beside its own size.
    pub fn new(value: T, heap_bytes: u64) -> Self {
        Self { value, heap_bytes }
    }

    /// The value.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Content for Opaque<T> {
    fn feed(&self, digest: &mut Digest) {
        digest.opaque();
    }

    fn heap_bytes(&self) -> u64 {
        self.heap_bytes
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Content for $number {
            fn feed(&self, digest: &mut Digest) {
                digest.bytes(&self.to_le_bytes());
            }

            fn heap_bytes(&self) -> u64 {
                0
            }

            fn feed_all(items: &[Self], digest: &mut Digest) {
                const SIZE: usize = size_of::<$number>();
                let mut block = [0; 64 * SIZE];
                for items in items.chunks(64) {
                    for (place, item) in block.chunks_exact_mut(SIZE).zip(items) {
                        place.copy_from_slice(&item.to_le_bytes());
                    }
                    digest.bytes(&block[..items.len() * SIZE]);
                }
            }
        }
    )*};
}

numbers!(i8, i16, i32, i64, i128, u16, u32, u64, u128, f32, f64);

impl Content for u8 {
    fn feed(&self, digest: &mut Digest) {
        digest.bytes(&[*self]);
    }

    fn heap_bytes(&self) -> u64 {
        0
    }

    fn feed_all(items: &[Self], digest: &mut Digest) {
        digest.bytes(items);
    }
}

/// Plain values, and how each becomes one that is fed already.
macro_rules! plain {
    ($($plain:ty: $value:ident => $fed:expr),* $(,)?) => {$(
        impl Content for $plain {
            fn feed(&self, digest: &mut Digest) {
                let $value = self;
                $fed.feed(digest);
            }

            fn heap_bytes(&self) -> u64 {
                0
            }
        }
    )*};
}

plain! {
    bool: value => u8::from(*value),
    char: value => u32::from(*value),
    usize: value => (*value as u64),
    isize: value => (*value as i64),
    Duration: value => value.as_nanos(),
    Fingerprint: value => value.to_string(),
}

impl Content for () {
    fn feed(&self, _: &mut Digest) {}

    fn heap_bytes(&self) -> u64 {
        0
    }
}

impl Content for str {
    fn feed(&self, digest: &mut Digest) {
        self.as_bytes().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        0
    }
}

impl Content for String {
    fn feed(&self, digest: &mut Digest) {
        self.as_str().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl Content for Path {
    fn feed(&self, digest: &mut Digest) {
        self.as_os_str().as_encoded_bytes().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        0
    }
}

impl Content for PathBuf {
    fn feed(&self, digest: &mut Digest) {
        self.as_path().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        self.capacity() as u64
    }
}

impl<T: Content> Content for [T] {
    fn feed(&self, digest: &mut Digest) {
        digest.number(self.len() as u64);
        T::feed_all(self, digest);
    }

    fn heap_bytes(&self) -> u64 {
        self.iter().map(T::heap_bytes).sum()
    }
}

impl<T: Content, const N: usize> Content for [T; N] {
    fn feed(&self, digest: &mut Digest) {
        self.as_slice().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        self.as_slice().heap_bytes()
    }
}

impl<T: Content> Content for Vec<T> {
    fn feed(&self, digest: &mut Digest) {
        self.as_slice().feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        (self.capacity() * size_of::<T>()) as u64 + self.as_slice().heap_bytes()
    }
}

impl<T: Content> Content for Option<T> {
    fn feed(&self, digest: &mut Digest) {
        self.is_some().feed(digest);
        if let Some(value) = self {
            value.feed(digest);
        }
    }

    fn heap_bytes(&self) -> u64 {
        self.as_ref().map_or(0, T::heap_bytes)
    }
}

impl<T: Content, E: Content> Content for Result<T, E> {
    fn feed(&self, digest: &mut Digest) {
        self.is_ok().feed(digest);
        match self {
            Ok(value) => value.feed(digest),
            Err(error) => error.feed(digest),
        }
    }

    fn heap_bytes(&self) -> u64 {
        self.as_ref().map_or_else(E::heap_bytes, T::heap_bytes)
    }
}

/// Pointers that own what they point to. A shared one counts its value in full.
macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        impl<T: Content + ?Sized> Content for $pointer<T> {
            fn feed(&self, digest: &mut Digest) {
                (**self).feed(digest);
            }

            fn heap_bytes(&self) -> u64 {
                size_of_val::<T>(self) as u64 + (**self).heap_bytes()
            }
        }
    )*};
}

pointers!(Box, Arc);

/// Collections that have an order of their own.
macro_rules! ordered {
    ($($collection:ident<$($of:ident),*>),*) => {$(
        impl<$($of: Content),*> Content for $collection<$($of),*> {
            fn feed(&self, digest: &mut Digest) {
                digest.number(self.len() as u64);
                for item in self {
                    item.feed(digest);
                }
            }

            fn heap_bytes(&self) -> u64 {
                let own = size_of::<($($of,)*)>() * self.len();
                own as u64 + self.iter().map(|item| item.heap_bytes()).sum::<u64>()
            }
        }
    )*};
}

ordered!(VecDeque<T>, BTreeSet<T>, BTreeMap<K, V>);

/// Collections without an order: the fingerprints of their items are sorted.
macro_rules! unordered {
    ($($collection:ident<$($of:ident),*>),*) => {$(
        impl<$($of: Content,)* S> Content for $collection<$($of,)* S> {
            fn feed(&self, digest: &mut Digest) {
                let mut items: Vec<Option<Fingerprint>> = self.iter().map(|item| fingerprint_of(&item)).collect();
                items.sort_unstable();
                digest.number(self.len() as u64);
                for item in items {
                    match item {
                        Some(item) => digest.fingerprint(item),
                        None => digest.opaque(),
                    }
                }
            }

            fn heap_bytes(&self) -> u64 {
                let own = (size_of::<($($of,)*)>() + 1) * self.capacity();
                own as u64 + self.iter().map(|item| item.heap_bytes()).sum::<u64>()
            }
        }
    )*};
}

unordered!(HashSet<T>, HashMap<K, V>);

impl<T: Content + ?Sized> Content for &T {
    fn feed(&self, digest: &mut Digest) {
        (**self).feed(digest);
    }

    fn heap_bytes(&self) -> u64 {
        (**self).heap_bytes()
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {$(
        impl<$($name: Content),+> Content for ($($name,)+) {
            fn feed(&self, digest: &mut Digest) {
                $(self.$index.feed(digest);)+
            }

            fn heap_bytes(&self) -> u64 {
                0 $(+ self.$index.heap_bytes())+
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}
