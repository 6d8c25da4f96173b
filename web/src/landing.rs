//! The page at `/`, for people who open the address in a browser.

use std::fmt::Write;

use crate::{Response, StatusCode};

/// The page at `/`: the program's name, its version and where to go. A link is a path and the words that name it.
pub fn landing(name: &str, version: &str, links: &[(&str, &str)]) -> Response {
    let (name, version) = (escape(name), escape(version));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name}</title></head>\n<body>\n\
         <h1>{name}</h1>\n<p>Version {version}</p>\n<ul>\n"
    );
    for (path, words) in links {
        let (path, words) = (escape(path), escape(words));
        writeln!(page, "<li><a href=\"{path}\">{words}</a></li>").expect("a String takes any text");
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    Response::html(StatusCode::OK, page)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_program_and_escapes_what_it_is_given() {
        let page = landing("conntrack-exporter", "0.1.0 <dev>", &[("/metrics?a=\"&b", "Metrics")]);
        let page = String::from_utf8(page.body().to_vec()).unwrap();
        assert!(page.contains("<h1>conntrack-exporter</h1>\n<p>Version 0.1.0 &lt;dev&gt;</p>"), "{page}");
        assert!(page.contains("<li><a href=\"/metrics?a=&quot;&amp;b\">Metrics</a></li>"), "{page}");
    }
}
