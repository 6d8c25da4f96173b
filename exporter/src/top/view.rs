//! What the person at the keys wants to see. Pure.

use super::keys::Key;
use super::rows::{Filter, Sort};

/// What is to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Redraw,
    Suspend,
    Quit,
}

/// The state of the screen.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) sort: Sort,
    /// As typed.
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) frozen: bool,
}

impl View {
    pub(super) fn new(sort: Sort, filter: &str) -> View {
        View { sort, filter: filter.to_owned(), typing: false, frozen: false }
    }

    pub(super) fn filter(&self) -> Filter {
        Filter::of(&self.filter)
    }

    /// Whether the list is not of all sources.
    pub(super) fn filters(&self) -> bool {
        self.filter() != Filter::All
    }

    pub(super) fn press(&mut self, key: Key) -> Then {
        match key {
            Key::Interrupt => Then::Quit,
            Key::Suspend => Then::Suspend,
            key if self.typing => self.write(key),
            key => self.command(key),
        }
    }

    fn command(&mut self, key: Key) -> Then {
        let sort = match key {
            Key::Char('q') => return Then::Quit,
            Key::Char(' ' | 'f') => {
                self.frozen = !self.frozen;
                return Then::Redraw;
            }
            Key::Char('/') => {
                self.typing = true;
                return Then::Redraw;
            }
            Key::Escape => {
                self.filter.clear();
                return Then::Redraw;
            }
            Key::Char('e') => Sort::Entries,
            Key::Char('a') => Sort::Assured,
            Key::Char('h') => Sort::HalfOpen,
            Key::Char('s') => Sort::Socketless,
            Key::Char('g') => Sort::Growth,
            Key::Char(_) | Key::Enter | Key::Backspace | Key::Interrupt | Key::Suspend => {
                return Then::Nothing;
            }
        };
        self.sort = sort;
        Then::Redraw
    }

    /// Each character filters at once.
    fn write(&mut self, key: Key) -> Then {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.filter.clear();
                self.typing = false;
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(c) => self.filter.push(c),
            Key::Interrupt | Key::Suspend => return Then::Nothing,
        }
        Then::Redraw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut view = View::new(Sort::Entries, "");
        assert_eq!((view.press(Key::Char('s')), view.sort), (Then::Redraw, Sort::Socketless));
        assert_eq!((view.press(Key::Char(' ')), view.frozen), (Then::Redraw, true));
        assert_eq!((view.press(Key::Char('f')), view.frozen), (Then::Redraw, false));
        assert_eq!(view.press(Key::Char('x')), Then::Nothing);
        for key in "/1q2".chars() {
            view.press(Key::Char(key));
        }
        assert_eq!((view.filter.as_str(), view.typing), ("1q2", true), "q is a letter while one types");
        view.press(Key::Backspace);
        assert_eq!((view.press(Key::Enter), view.filter.as_str()), (Then::Redraw, "1q"));
        assert_eq!((view.press(Key::Escape), view.filter.as_str()), (Then::Redraw, ""));
        assert_eq!(view.press(Key::Char('q')), Then::Quit);
        view.press(Key::Char('/'));
        assert_eq!(view.press(Key::Interrupt), Then::Quit, "Ctrl-C always ends");
    }
}
