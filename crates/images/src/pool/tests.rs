//! Bounds, order, cancellation and ends of the pool.

use std::sync::mpsc;
use std::task::Waker;

use futures::FutureExt;
use futures::executor::block_on;

use super::*;

const SMALL: PoolSettings = PoolSettings {
    threads: 1,
    max_queued: 3,
    max_queued_bytes: 100,
    limits: Limits {
        max_bytes: 1 << 20,
        max_pixels: 1 << 20,
        max_side: 1 << 10,
        max_decoder_bytes: 1 << 24,
        max_scans: 64,
        max_frames: 8,
    },
};

/// A pool whose only thread is held until the returned sender is dropped.
fn held(settings: PoolSettings) -> (Pool, mpsc::Sender<()>, Preparing<()>) {
    let pool = Pool::new(settings).unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (taken, begun) = mpsc::channel();
    let first = pool.submit(0, Urgency::High, move |_| {
        taken.send(()).unwrap();
        let _released = held.recv();
        Ok((1, ()))
    });
    begun.recv().unwrap();
    (pool, hold, first.unwrap())
}

fn polled<T>(preparing: &mut Preparing<T>) -> Poll<Result<T, PoolError>> {
    preparing.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn pictures_are_prepared_and_counted() {
    let pool = Pool::new(PoolSettings { threads: 2, ..PoolSettings::default() }).unwrap();
    let recipe = Recipe {
        patch_size: 16,
        temporal_patch_size: 2,
        merge_size: 2,
        min_pixels: 1024,
        max_pixels: 4096,
        mean: [0.5; 3],
        std: [0.5; 3],
        rescale: 1.0 / 255.0,
    };
    let recipe = Arc::new(recipe);
    let mut png = io::Cursor::new(Vec::new());
    image::RgbImage::from_fn(50, 40, |x, y| image::Rgb([x as u8, y as u8, 7]))
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let png: Arc<[u8]> = png.into_inner().into();
    let prepare = |bytes: &Arc<[u8]>| {
        block_on(pool.still(Arc::clone(bytes), Arc::clone(&recipe), Urgency::Normal).unwrap())
    };
    let alone = patches(&png, &recipe, pool.limits()).unwrap();
    assert_eq!(prepare(&png), Ok(alone.clone()));
    assert_eq!(prepare(&Arc::from(*b"none")).unwrap_err().to_string().split(':').count(), 1);
    let clip = ClipRecipe { frame: (*recipe).clone(), fps: 2.0, min_frames: 4, max_frames: 8 };
    let frames = Frames::Chosen { frames: vec![Arc::clone(&png); 3], fps: 1.0 };
    let clip = block_on(pool.clip(frames, Arc::new(clip), Urgency::Low).unwrap()).unwrap();
    assert_eq!((clip.patches.grid.t, clip.seconds), (2, vec![0.5, 2.0]));
    // A thread answers before it takes its notes, so the notes of the last are waited for by ending the pool.
    let shared = Arc::clone(&pool.shared);
    drop(pool);
    let meters = shared.state().meters.clone();
    let patches = (alone.grid.patches() + clip.patches.grid.patches()) as u64;
    assert_eq!((meters.prepared, meters.patches, meters.busy), (2, patches, 0));
    assert_eq!(meters.failed, BTreeMap::from([("unknown_format", 1)]));
}

#[test]
fn what_has_no_room_is_refused_and_what_is_dropped_makes_room() {
    let (pool, _hold, _first) = held(SMALL);
    let submit = |bytes| pool.submit(bytes, Urgency::Normal, |_| Ok((1, ())));
    let large = submit(90).unwrap();
    assert_eq!(submit(11).unwrap_err(), PoolError::Full { queued: 1, queued_bytes: 90 });
    let _small = submit(10).unwrap();
    drop(large);
    let _others = [submit(0).unwrap(), submit(90).unwrap()];
    assert_eq!(submit(0).unwrap_err(), PoolError::Full { queued: 3, queued_bytes: 100 });
    let meters = pool.meters();
    assert_eq!((meters.busy, meters.queued, meters.queued_bytes), (1, 3, 100));
    assert_eq!((meters.cancelled, meters.refused), (1, 2));
}

#[test]
fn the_urgent_go_first_and_nobody_starves() {
    let (pool, hold, _first) = held(PoolSettings { max_queued: 1000, ..SMALL });
    let (order, seen) = mpsc::channel();
    let submit = |urgency, name: &'static str| {
        let order = order.clone();
        pool.submit(0, urgency, move |_| {
            order.send(name).unwrap();
            Ok((1, ()))
        })
        .unwrap()
    };
    let mut waiting = vec![submit(Urgency::Low, "low"), submit(Urgency::Normal, "normal")];
    waiting.extend((0..600).map(|_| submit(Urgency::High, "high")));
    drop(hold);
    let seen: Vec<&str> = seen.iter().take(602).collect();
    let place = |name| seen.iter().position(|seen| *seen == name).unwrap();
    assert_eq!((place("high"), place("normal"), place("low")), (0, 63, 511));
}

#[test]
fn a_job_that_panics_fails_alone_and_the_thread_goes_on() {
    let pool = Pool::new(SMALL).unwrap();
    let broken = pool.submit::<()>(0, Urgency::Normal, |_| std::panic::resume_unwind(Box::new(()))).unwrap();
    assert_eq!(block_on(broken), Err(PoolError::Stopped));
    assert_eq!(block_on(pool.submit(0, Urgency::Normal, |_| Ok((1, 5))).unwrap()), Ok(5));
    assert_eq!(pool.meters().failed, BTreeMap::from([("panic", 1)]));
}

#[test]
fn a_pool_that_ends_tells_those_who_wait() {
    let (pool, hold, mut first) = held(SMALL);
    let mut second = pool.submit(0, Urgency::Normal, |_| Ok((1, ()))).unwrap();
    assert!(polled(&mut second).is_pending());
    // The thread is released by whoever hears that the waiting one was given up, so the pool can end.
    let told = thread::spawn(move || {
        assert_eq!(block_on(second), Err(PoolError::Stopped));
        drop(hold);
    });
    drop(pool);
    told.join().unwrap();
    assert_eq!(polled(&mut first), Poll::Ready(Ok(())));
}
