//! Lines by scenario files, against a naive model, and in simulations of what each policy promises.

use std::time::Duration;

use super::*;
use crate::FlowError;
use crate::queue::policy::{self, Discipline, PolicySettings};

mod aging;
mod due;
mod model;
mod scenarios;
mod shares;

fn ticket(level: u8, cost: u64, deadline: Option<Duration>) -> Ticket {
    Ticket { deadline, ..Ticket::of("someone").level(level).cost(cost) }
}

const ROOM: Capacity = Capacity::items(1000).cost(1000);

#[test]
fn policies_are_chosen_by_name() {
    for policy in policy::POLICIES {
        assert_eq!(policy.name.parse::<Discipline>(), Ok(policy));
        assert!(!policy.about.is_empty());
    }
    let unknown = "lifo".parse::<Discipline>();
    assert_eq!(unknown, Err(FlowError::UnknownPolicy { found: "lifo".to_owned() }));
    assert!(unknown.unwrap_err().to_string().contains("fifo, priority"));
}

#[test]
fn items_and_tickets_can_be_looked_at_where_they_wait() {
    let mut queue = Line::new(ROOM, Discipline::default());
    let id = queue.try_put("a".to_owned(), ticket(1, 3, None), Duration::ZERO).unwrap();
    queue.item_mut(id).unwrap().push('!');
    assert_eq!(queue.item(id).unwrap(), "a!");
    assert_eq!(queue.peek(Duration::ZERO).unwrap(), "a!");
    assert_eq!(queue.next_ticket(Duration::ZERO).map(|(next, ticket)| (next, ticket.cost)), Some((id, 3)));
    let taken = queue.take(Duration::ZERO).unwrap();
    assert_eq!((taken.id(), taken.ticket().level, taken.arrived()), (id, 1, Duration::ZERO));
    assert!(queue.item(id).is_none());
    assert!(format!("{queue:?}").contains("Priority"));
}

#[test]
fn put_back_into_another_queue_is_noticed() {
    let mut queues = [0, 1].map(|_| Line::new(ROOM, Discipline::default()));
    for queue in &mut queues {
        queue.try_put((), ticket(0, 1, None), Duration::ZERO).unwrap();
    }
    let [mine, other] = &mut queues;
    let taken = mine.take(Duration::ZERO).unwrap();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| other.put_back(taken)));
    assert!(caught.is_err());
}
