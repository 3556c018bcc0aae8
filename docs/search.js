// Search in pages that are opened from disk. Material's own search needs a worker, which browsers refuse there.
(function () {
  "use strict";
  if (location.protocol !== "file:" || typeof searchIndex === "undefined") return;
  var most = 30;
  var base = JSON.parse(document.getElementById("__config").textContent).base;

  function plain(html) {
    return new DOMParser().parseFromString(html, "text/html").body.textContent.replace(/\s+/g, " ");
  }

  var sections = searchIndex.docs.map(function (doc) {
    return { place: doc.location, title: plain(doc.title), text: plain(doc.text) };
  });

  var pages = {};
  for (var section of sections) if (!section.place.includes("#")) pages[section.place] = section.title;

  function find(question) {
    var words = question.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    return sections
      .map(function (section) {
        var title = section.title.toLowerCase(), text = section.text.toLowerCase(), score = 0;
        for (var word of words) {
          var times = text.split(word).length - 1, named = title.includes(word);
          if (!times && !named) return null; // every word must be there
          score += (named ? 20 : 0) + Math.min(times, 10);
        }
        return { section: section, score: score, at: text.indexOf(words[0]) };
      })
      .filter(Boolean)
      .sort(function (a, b) { return b.score - a.score; });
  }

  function item(found) {
    var section = found.section, from = Math.max(found.at - 60, 0);
    var entry = document.createElement("li"), link = document.createElement("a"), body = document.createElement("article");
    entry.className = "md-search-result__item";
    link.className = "md-search-result__link";
    link.href = base + "/" + section.place;
    body.className = "md-search-result__article md-typeset";
    var page = pages[section.place.split("#")[0]] || section.title;
    body.appendChild(document.createElement("h1")).textContent =
      page === section.title ? page : page + ": " + section.title;
    body.appendChild(document.createElement("p")).textContent =
      (from ? "…" : "") + section.text.slice(from, from + 180) + (section.text.length > from + 180 ? "…" : "");
    link.appendChild(body);
    entry.appendChild(link);
    return entry;
  }

  window.addEventListener("load", function () {
    var search = document.querySelector("[data-md-component=search]");
    var input = search.querySelector("input"), list = search.querySelector(".md-search-result__list");
    var meta = search.querySelector(".md-search-result__meta"), toggle = document.getElementById("__search");
    search.hidden = false; // Material hides it when its worker is refused
    input.addEventListener("focus", function () { toggle.checked = true; });
    toggle.addEventListener("change", function () { if (toggle.checked) input.focus(); });
    document.addEventListener("keydown", function (event) {
      if (event.key === "Escape") { toggle.checked = false; input.blur(); }
    });
    input.addEventListener("input", function () {
      var found = find(input.value);
      list.replaceChildren.apply(list, found.slice(0, most).map(item));
      meta.textContent = input.value.trim() ? found.length + " found" : "Type to search";
    });
    meta.textContent = "Type to search";
  });
})();
