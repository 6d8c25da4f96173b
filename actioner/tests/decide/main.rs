//! The decision, without kernel and clock: what is banned, what is refused and why, and what repeats change.

mod guard;
mod judgement;
mod repeats;
mod scene;
mod top;
