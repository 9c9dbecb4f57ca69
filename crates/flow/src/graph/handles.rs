//! Typed names of inputs and nodes.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;

use super::Digest;
use super::memo::Value;

/// An input of a graph: a value of type `A` that is given to it.
pub struct Input<A>(pub(super) Node<A>);

/// A node of a graph: something that makes a value of type `B`. Inputs count as nodes.
pub struct Node<B> {
    /// Which graph gave out the handle.
    pub(super) graph: u64,
    pub(super) index: u32,
    of: PhantomData<fn() -> B>,
}

/// A node by its name, which need not be there yet; whether it is, and makes a `B`, is found out when the graph is
/// built.
pub struct Named<B> {
    name: Arc<str>,
    of: PhantomData<fn() -> B>,
}

impl<B> Node<B> {
    pub(super) fn new(graph: u64, index: u32) -> Self {
        Self { graph, index, of: PhantomData }
    }
}

impl<A> Input<A> {
    /// The input as a node.
    pub fn node(self) -> Node<A> {
        self.0
    }
}

impl<B> Named<B> {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), of: PhantomData }
    }
}

impl<B> Clone for Node<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Node<B> {}

impl<A> Clone for Input<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Input<A> {}

impl<B> Clone for Named<B> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), of: PhantomData }
    }
}

impl<A> From<Input<A>> for Node<A> {
    fn from(input: Input<A>) -> Self {
        input.0
    }
}

impl<B> fmt::Debug for Node<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node<{}>({})", type_name::<B>(), self.index)
    }
}

impl<A> fmt::Debug for Input<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input<{}>({})", type_name::<A>(), self.0.index)
    }
}

impl<B> fmt::Debug for Named<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Named<{}>({:?})", type_name::<B>(), self.name)
    }
}

/// The type of what a node makes, for comparing and for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) id: TypeId,
    pub(super) name: &'static str,
}

impl Kind {
    pub(super) fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: type_name::<T>() }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// What a handle refers to.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Reference {
    pub(super) target: Target,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Handle { graph: u64, index: u32 },
    Name(Arc<str>),
}

/// What a node may depend on and what a graph may be asked for: [`Input`], [`Node`], [`Named`], and tuples, vectors and
/// arrays of these.
pub trait Deps: Clone + Send + Sync + Unpin + 'static {
    /// What arrives: `Arc<B>` for a node, and the same tuple or vector of these.
    type Values: Send + 'static;

    /// Adds what is referred to, in order.
    #[doc(hidden)]
    fn list(&self, references: &mut Vec<Reference>);

    /// Feeds what tells this from others that list the same: how many there are in each vector.
    #[doc(hidden)]
    fn feed_shape(&self, _: &mut Digest) {}

    /// Takes as many values as were listed.
    #[doc(hidden)]
    fn collect(&self, values: &mut slice::Iter<'_, Arc<dyn Any + Send + Sync>>) -> Self::Values;
}

/// Types and numbers of values were compared with those of the handles when the graph was built.
fn take<B: Send + Sync + 'static>(values: &mut slice::Iter<'_, Value>) -> Arc<B> {
    let value = values.next().map(Arc::clone).map(Arc::downcast::<B>);
    value.and_then(Result::ok).expect("a node gets the values that it asked for")
}

/// A node that depends on nothing.
impl Deps for () {
    type Values = ();

    fn list(&self, _: &mut Vec<Reference>) {}

    fn collect(&self, _: &mut slice::Iter<'_, Value>) {}
}

impl<B: Send + Sync + 'static> Deps for Node<B> {
    type Values = Arc<B>;

    fn list(&self, references: &mut Vec<Reference>) {
        let target = Target::Handle { graph: self.graph, index: self.index };
        references.push(Reference { target, kind: Kind::of::<B>() });
    }

    fn collect(&self, values: &mut slice::Iter<'_, Value>) -> Arc<B> {
        take(values)
    }
}

impl<A: Send + Sync + 'static> Deps for Input<A> {
    type Values = Arc<A>;

    fn list(&self, references: &mut Vec<Reference>) {
        self.0.list(references);
    }

    fn collect(&self, values: &mut slice::Iter<'_, Value>) -> Arc<A> {
        take(values)
    }
}

impl<B: Send + Sync + 'static> Deps for Named<B> {
    type Values = Arc<B>;

    fn list(&self, references: &mut Vec<Reference>) {
        let target = Target::Name(Arc::clone(&self.name));
        references.push(Reference { target, kind: Kind::of::<B>() });
    }

    fn collect(&self, values: &mut slice::Iter<'_, Value>) -> Arc<B> {
        take(values)
    }
}

impl<D: Deps> Deps for Vec<D> {
    type Values = Vec<D::Values>;

    fn list(&self, references: &mut Vec<Reference>) {
        self.iter().for_each(|each| each.list(references));
    }

    fn feed_shape(&self, digest: &mut Digest) {
        digest.number(self.len() as u64);
        self.iter().for_each(|each| each.feed_shape(digest));
    }

    fn collect(&self, values: &mut slice::Iter<'_, Value>) -> Vec<D::Values> {
        self.iter().map(|each| each.collect(values)).collect()
    }
}

impl<D: Deps, const N: usize> Deps for [D; N] {
    type Values = [D::Values; N];

    fn list(&self, references: &mut Vec<Reference>) {
        self.iter().for_each(|each| each.list(references));
    }

    fn feed_shape(&self, digest: &mut Digest) {
        self.iter().for_each(|each| each.feed_shape(digest));
    }

    fn collect(&self, values: &mut slice::Iter<'_, Value>) -> [D::Values; N] {
        std::array::from_fn(|place| self[place].collect(values))
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))*) => {$(
        impl<$($name: Deps),+> Deps for ($($name,)+) {
            type Values = ($($name::Values,)+);

            fn list(&self, references: &mut Vec<Reference>) {
                $(self.$index.list(references);)+
            }

            fn feed_shape(&self, digest: &mut Digest) {
                $(self.$index.feed_shape(digest);)+
            }

            fn collect(&self, values: &mut slice::Iter<'_, Value>) -> Self::Values {
                ($(self.$index.collect(values),)+)
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
