//! Requests whose pictures the tower has yet to read, on the engine's thread.
//!
//! They have left the line and hold no pages. The tower reads one picture after the other, the most urgent request's
//! first, as much of it in a step as the step has room for. Requests that show the same picture wait for one reading.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use models::vision::{Features, Frame, Grid, Tower, TowerShape};
use protocol::Failure;

use super::shelf::{Name, Shelf};
use super::{Picture, Sight, VisionSettings};
use crate::compute::message;
use crate::plan::Rank;
use crate::prefix::Scope;

/// A sequence's pictures on their way.
pub(crate) struct Viewer {
    /// Names its request.
    pub(crate) rank: Rank,
    scope: Arc<Scope>,
    looks: Vec<Look>,
}

/// A picture of a viewer.
enum Look {
    /// Still to be read.
    Waiting(Picture),
    /// Read, by whomever.
    Seen(Arc<Features>),
}

/// What the tower reads now.
struct Current {
    name: Name,
    /// Multiplications that are left of it, about.
    left: u64,
}

/// The tower with the picture that it is to read on: it leaves the engine's hands while it reads, which may not come back.
pub(crate) struct Reading {
    tower: Box<dyn Tower>,
    /// To be begun with, unless it has been.
    frame: Option<Frame>,
    /// About so many multiplications.
    work: u64,
}

/// What a slice of the tower's time has brought.
#[derive(Default)]
pub(crate) struct Glance {
    /// Requests whose pictures are all seen.
    pub(crate) ready: Vec<(Rank, Vec<Arc<Features>>)>,
    /// Requests whose pictures cannot be.
    pub(crate) lost: Vec<(u64, Failure)>,
    /// Multiplications done.
    pub(crate) work: u64,
    /// Pictures read to their end, and their patches.
    pub(crate) read: (u64, u64),
}

/// The tower, what waits for it, and what it has made.
pub(crate) struct Gallery {
    /// Away while it reads.
    tower: Option<Box<dyn Tower>>,
    shape: TowerShape,
    shelf: Shelf,
    budget: usize,
    viewers: Vec<Viewer>,
    current: Option<Current>,
    /// Bytes of the features that started requests hold or will.
    held: usize,
    /// The share of a step that is the tower's while prompts are read too.
    pub(crate) share: f64,
    /// Multiplications that a token of a prompt takes.
    token_work: u64,
    /// Seconds that a multiplication has taken lately.
    pace: Option<f64>,
    /// Looked up, and found.
    pub(crate) queries: (u64, u64),
}

/// How much a new measurement of the pace counts.
const NEWS: f64 = 0.2;

impl Gallery {
    /// Nothing to see yet; `parameters` are those of the decoder and the tower together.
    pub(crate) fn new(tower: Box<dyn Tower>, settings: &VisionSettings, parameters: u64) -> Self {
        let token_work = parameters.saturating_sub(tower.shape().parameters).max(1);
        Self {
            shape: tower.shape(),
            tower: Some(tower),
            shelf: Shelf::new(settings.feature_bytes, settings.below.clone()),
            budget: settings.feature_bytes,
            viewers: Vec::new(),
            current: None,
            held: 0,
            share: f64::from(settings.share.clamp(0.0, 1.0)),
            token_work,
            pace: None,
            queries: (0, 0),
        }
    }

    /// Bytes of the features of some pictures.
    pub(crate) fn need(&self, grids: impl Iterator<Item = Grid>) -> usize {
        grids.map(|grid| self.shape.feature_bytes(grid.tokens(self.shape.merge))).sum()
    }

    /// Whether a request whose features take `need` bytes may start. One that is alone always may.
    pub(crate) fn has_room(&self, need: usize) -> bool {
        self.held == 0 || self.held + need <= self.budget
    }

    /// Takes in a request that may start; returns its features if they are all known, and the tokens that the tower's work
    /// for it stands for.
    pub(crate) fn enter(
        &mut self,
        (rank, need): (Rank, usize),
        scope: &Arc<Scope>,
        pictures: Vec<Picture>,
    ) -> (Option<Vec<Arc<Features>>>, usize) {
        self.held += need;
        let mut work = 0;
        let mut looks = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let name = Name { scope: Arc::clone(scope), hash: picture.hash };
            self.queries.0 += 1;
            looks.push(match (self.shelf.find(&name), &picture.sight) {
                (Some(features), _) => {
                    self.queries.1 += 1;
                    Look::Seen(features)
                }
                (None, Sight::Features(features)) => {
                    self.queries.1 += 1;
                    self.shelf.keep(name, Arc::clone(features));
                    Look::Seen(Arc::clone(features))
                }
                (None, Sight::Pixels(_)) => {
                    let is_new = !self.viewers.iter().any(|viewer| viewer.waits_for(&name));
                    let tower = self.tower.as_ref().filter(|_| is_new);
                    work += tower.map_or(0, |tower| tower.work(picture.grid));
                    Look::Waiting(picture)
                }
            });
        }
        let viewer = Viewer { rank, scope: Arc::clone(scope), looks };
        if let Some(features) = viewer.features() {
            return (Some(features), 0);
        }
        let at = self.viewers.partition_point(|other| other.rank < rank);
        self.viewers.insert(at, viewer);
        (None, self.tokens(work))
    }

    /// Lets go of a request that had entered, wherever it is now.
    pub(crate) fn leave(&mut self, order: u64, need: usize) {
        self.held = self.held.saturating_sub(need);
        self.viewers.retain(|viewer| viewer.rank.order != order);
        let wanted = |current: &Current| self.viewers.iter().any(|viewer| viewer.waits_for(&current.name));
        if self.current.as_ref().is_some_and(|current| !wanted(current)) {
            self.abandon();
        }
    }

    /// Goes on with another tower of the same weights; what the old one was reading is read from the beginning.
    pub(crate) fn renew(&mut self, tower: Box<dyn Tower>) {
        self.tower = Some(tower);
        self.current = None;
    }

    /// Whether anybody waits for the tower.
    pub(crate) fn is_busy(&self) -> bool {
        !self.viewers.is_empty()
    }

    /// How many requests wait for it.
    pub(crate) fn waiting(&self) -> usize {
        self.viewers.len()
    }

    /// Whether the pictures of a request are still to be seen.
    pub(crate) fn holds(&self, order: u64) -> bool {
        self.viewers.iter().any(|viewer| viewer.rank.order == order)
    }

    /// Bytes of features in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.shelf.bytes()
    }

    /// Forgets the features that nobody needs, on all rungs of memory.
    pub(crate) fn clear(&mut self) {
        self.shelf.clear();
    }

    /// Lets the features go that nobody needs, down the ladder if there is one.
    pub(crate) fn empty(&mut self) {
        self.shelf.empty();
    }

    /// Multiplications that `tokens` of a prompt stand for, but no more than fit into `time` at the pace that was measured.
    pub(crate) fn allowance(&self, tokens: usize, time: Option<Duration>) -> u64 {
        let work = (tokens.max(1) as u64).saturating_mul(self.token_work);
        match (time, self.pace) {
            (Some(time), Some(pace)) => work.min((time.as_secs_f64() / pace) as u64),
            // How long it takes is not known yet: the first slice is a small one.
            (Some(_), None) => self.token_work,
            (None, _) => work,
        }
    }

    /// Tokens of a prompt that so much work stands for.
    pub(crate) fn tokens(&self, work: u64) -> usize {
        work.div_ceil(self.token_work) as usize
    }

    /// Notes that so much work took so long.
    pub(crate) fn observe(&mut self, work: u64, took: Duration) {
        if work > 0 {
            let news = took.as_secs_f64() / work as f64;
            self.pace = Some(self.pace.map_or(news, |pace| pace + NEWS * (news - pace)));
        }
    }

    /// Gives the tower away to read on for about so many multiplications, if there is something to read.
    pub(crate) fn lend(&mut self, work: u64) -> Option<Reading> {
        if work == 0 {
            return None;
        }
        let (name, frame) = self.due()?;
        let tower = self.tower.take()?;
        if let Some(frame) = &frame {
            self.current = Some(Current { name, left: tower.work(frame.grid) });
        }
        Some(Reading { tower, frame, work })
    }

    /// Whether the tower reads.
    pub(crate) fn is_reading(&self) -> bool {
        self.tower.is_none()
    }

    /// Takes the tower back, with what it has made of the picture.
    pub(crate) fn take_back(
        &mut self,
        Reading { tower, work, .. }: Reading,
        read: Result<Option<Features>, String>,
    ) -> Glance {
        self.tower = Some(tower);
        let mut glance = Glance::default();
        let Some(mut current) = self.current.take() else { return glance };
        match read {
            Ok(None) => {
                glance.work = work.min(current.left).max(1);
                current.left -= work.min(current.left);
                self.current = Some(current);
            }
            Ok(Some(features)) => {
                glance.work = current.left.max(1);
                glance.read = (1, (features.tokens() * self.shape.merge.pow(2)) as u64);
                self.show(&current.name, Arc::new(features), &mut glance);
            }
            Err(message) => {
                self.abandon();
                self.lose(&current.name, &message, &mut glance);
            }
        }
        glance
    }

    /// Goes on without the tower, which does not come back; returns the requests that wait for what it reads.
    pub(crate) fn leave_behind(&mut self) -> Vec<u64> {
        let Some(Current { name, .. }) = self.current.take().filter(|_| self.is_reading()) else {
            return Vec::new();
        };
        let waits = self.viewers.iter().filter(|viewer| viewer.waits_for(&name));
        waits.map(|viewer| viewer.rank.order).collect()
    }

    /// The picture to read: the one in hand, or the first of the most urgent request.
    fn due(&self) -> Option<(Name, Option<Frame>)> {
        if let Some(current) = &self.current {
            return Some((current.name.clone(), None));
        }
        self.viewers.iter().find_map(|viewer| {
            viewer.looks.iter().find_map(|look| match look {
                Look::Waiting(Picture { hash, grid, sight: Sight::Pixels(pixels), .. }) => {
                    let frame = Frame { grid: *grid, pixels: pixels.clone() };
                    Some((Name { scope: Arc::clone(&viewer.scope), hash: *hash }, Some(frame)))
                }
                Look::Waiting(_) | Look::Seen(_) => None,
            })
        })
    }

    /// Gives what was made of a picture to all who wait for it.
    fn show(&mut self, name: &Name, features: Arc<Features>, glance: &mut Glance) {
        for viewer in self.viewers.iter_mut().filter(|viewer| viewer.scope == name.scope) {
            for look in &mut viewer.looks {
                if matches!(look, Look::Waiting(picture) if picture.hash == name.hash) {
                    *look = Look::Seen(Arc::clone(&features));
                }
            }
        }
        self.viewers.retain(|viewer| {
            let features = viewer.features();
            let stays = features.is_none();
            glance.ready.extend(features.map(|features| (viewer.rank, features)));
            stays
        });
        self.shelf.keep(name.clone(), features);
    }

    /// Gives up a picture that cannot be read, and all who wait for it.
    fn lose(&mut self, name: &Name, message: &str, glance: &mut Glance) {
        let waits = self.viewers.iter().filter(|viewer| viewer.waits_for(name));
        let failure = || Failure::Engine { message: message.to_owned() };
        glance.lost.extend(waits.map(|viewer| (viewer.rank.order, failure())));
        self.viewers.retain(|viewer| !viewer.waits_for(name));
    }

    /// Forgets the picture that is in hand.
    fn abandon(&mut self) {
        self.tower.iter_mut().for_each(|tower| tower.abandon());
        self.current = None;
    }
}

impl Reading {
    /// Reads on; features come when the picture is whole.
    ///
    /// # Errors
    /// What the tower said when it panicked, or that memory was refused.
    pub(crate) fn run(&mut self) -> Result<Option<Features>, String> {
        let Self { tower, frame, work } = self;
        let read = || {
            if let Some(frame) = frame.take() {
                tower.begin(frame).map_err(|error| error.to_string())?;
            }
            Ok(tower.advance(*work))
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| Err(message(&*panic)))
    }
}

impl Viewer {
    fn waits_for(&self, name: &Name) -> bool {
        let is = |look: &Look| matches!(look, Look::Waiting(picture) if picture.hash == name.hash);
        self.scope == name.scope && self.looks.iter().any(is)
    }

    /// The features of all its pictures, once they are there.
    fn features(&self) -> Option<Vec<Arc<Features>>> {
        let of = |look: &Look| match look {
            Look::Seen(features) => Some(Arc::clone(features)),
            Look::Waiting(_) => None,
        };
        self.looks.iter().map(of).collect()
    }
}
