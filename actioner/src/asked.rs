//! The alerts of a notification, and what stands for those that Alertmanager cut off.

use crate::alert::Alert;
use crate::webhook::Notification;
use std::collections::HashSet;

/// An alert to be decided. `cut_off`: it stands for so many alerts of its group that Alertmanager left out, and nominates
/// from the live table instead.
pub(crate) struct Asked {
    pub(crate) alert: Alert,
    pub(crate) cut_off: Option<u64>,
}

/// A notification's alerts; behind them, where Alertmanager cut some off, one for each alert name that was firing.
pub(crate) fn with_those_cut_off(notification: Notification) -> Vec<Asked> {
    let cut_off = notification.truncated_alerts;
    let mut stand_ins: Vec<Asked> = Vec::new();
    if cut_off > 0 {
        let mut seen = HashSet::new();
        let firing = notification.alerts.iter().filter(|alert| alert.firing);
        let firsts = firing.filter(|alert| seen.insert(alert.name()));
        stand_ins.extend(firsts.map(|alert| Asked { alert: alert.clone(), cut_off: Some(cut_off) }));
    }
    let alerts = notification.alerts.into_iter();
    alerts.map(|alert| Asked { alert, cut_off: None }).chain(stand_ins).collect()
}
