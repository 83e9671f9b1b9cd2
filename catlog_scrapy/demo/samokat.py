"""Grocery delivery whose pages are rendered in the browser, from responses to their own requests.

Known of the original: the address (https://samokat.ru), category links with the class prefix
`CategoryLink_root`, among them «Что нового», and the page's requests with `/v2/showcases` in the
URL, of which URLs with `list` hold no products.

Invented: the names and forms of the documents, the hashes of class names, which every change renews
as a deployment would, prices in kopecks, the products, and 48 products in a document. The new
products are an endless series, of which the showcase shows a window. Each change moves the window
by one product, and lowers or restores every eighth price.
"""

import hashlib
import uuid
from typing import Any

from catlog_scrapy.demo.source import DemoReply, DemoRequest, DemoSource, World, json_reply

ROOT = "/samokat"
NEW = "new"
SHOWCASES = {NEW: "Что нового", "fruits": "Фрукты и ягоды", "dairy": "Молоко, сыр и яйца"}
SIZES = {NEW: 264, "fruits": 60, "dairy": 90}
PAGE_SIZE = 48

# Name and specification.
GOODS = (
    ("Йогурт «Чудо» с клубникой 🍓", "290 г"),
    ("Молоко «Простоквашино» 2,5 %", "930 мл"),
    ("Хлеб «Бородинский» нарезной", "400 г"),
    ("Сырок глазированный «Б. Ю. Александров»", "50 г"),
    ("Кофе в зёрнах ☕ Эфиопия", "250 г"),
    ("Хумус с тахини (טחינה)", "200 г"),
    ("Финики «Меджул» تمر", "500 г"),
    ("Пельмени «Сибирская коллекция» <12 шт.>", "700 г"),
    ("Crème brûlée с ванилью", "100 г"),
    ("Вода «Святой источник» & лимон", "1 л"),
    ("Авокадо Хасс 🥑 спелое", "2 шт."),
)
MAKES = ("", "для детей 👶🏽", "без сахара", "Большая упаковка", "веган 🌱", "хит")
PRICES = (4990, 8900, 12900, 17950, 24900, 39900, 129000)
SALE = 1000


def products(showcase: str, step: int = 0) -> list[dict[str, Any]]:
    """Return the products of *showcase* after *step* changes, newest first."""
    oldest = step if showcase == NEW else 0
    window = range(oldest, oldest + SIZES[showcase])[::-1]
    return [_product(showcase, index, step) for index in window]


def _product(showcase: str, index: int, step: int) -> dict[str, Any]:
    name, specification = GOODS[index % len(GOODS)]
    make = MAKES[index // len(GOODS) % len(MAKES)]
    series = index // (len(GOODS) * len(MAKES))
    full = PRICES[index % len(PRICES)]
    on_sale = (step + index % 8) // 8 % 2 == 1
    id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"https://samokat.ru/{showcase}/{index}"))
    return {
        "id": id_,
        "name": " ".join(filter(None, (name, make, f"№ {series + 1}"))),
        "specification": specification.replace(" ", "\N{NO-BREAK SPACE}"),
        "prices": {"current": full - SALE * on_sale, "old": full if on_sale else None},
        "badges": ["🔥 Новинка"] if index % 5 == 0 else [],
        "inStock": index % 9 != 4,
        "image": f"{ROOT}/media/{id_}.webp",
    }


def pages(showcase: str) -> int:
    """Return the number of documents of *showcase*."""
    return -(-SIZES[showcase] // PAGE_SIZE)


def document(showcase: str, page: int, step: int) -> dict[str, Any]:
    """Return the document of page *page*, from 1 to `pages(showcase)`."""
    first = (page - 1) * PAGE_SIZE
    return {
        "showcase": {"id": showcase, "name": SHOWCASES[showcase]},
        "page": page,
        "pages": pages(showcase),
        "total": SIZES[showcase],
        "products": products(showcase, step)[first : first + PAGE_SIZE],
    }


def listing() -> dict[str, Any]:
    """Return the document of the menu."""
    return {"showcases": [{"id": id_, "name": name} for id_, name in SHOWCASES.items()]}


def page(step: int) -> bytes:
    """Render the page for all paths: the menu, and the selected showcase."""
    hashed = hashlib.sha256(f"samokat {step}".encode()).hexdigest()[:3]
    return PAGE.replace("HASH", hashed).replace("ROOT", ROOT).encode()


PAGE = """\
<!DOCTYPE html>
<html lang="ru">
<head><meta charset="utf-8"><title>Самокат: доставка продуктов</title></head>
<body>
<nav class="CategoryMenu_root__HASH"></nav>
<main class="Showcase_root__HASH"></main>
<script>
const menu = document.querySelector("nav"), shown = document.querySelector("main");

async function ask(path) {
  const response = await fetch("ROOT/v2/showcases/" + path);
  if (!response.ok) throw new Error(response.status);
  return response.json();
}

function draw(product) {
  const card = document.createElement("article"), image = document.createElement("img");
  card.className = "ProductCard_root__HASH";
  card.textContent = product.name + " " + product.prices.current / 100 + " ₽";
  image.src = product.image;
  card.prepend(image);
  shown.append(card);
}

async function open(id) {
  shown.replaceChildren();
  for (let page = 1, pages = 1; page <= pages; page++) {
    const document = await ask(id + "?page=" + page);
    document.products.forEach(draw);
    pages = document.pages;
  }
}

ask("list?city=msk").then(({showcases}) => showcases.forEach(({id, name}) => {
  const link = document.createElement("a");
  link.className = "CategoryLink_root__HASH Text_body__HASH";
  link.href = "ROOT/category/" + id;
  link.innerHTML = "<span></span>";
  link.firstChild.textContent = name;
  link.onclick = (event) => {
    event.preventDefault();
    history.pushState(null, "", link.href);
    open(id);
  };
  menu.append(link);
}));
</script>
</body>
</html>
"""


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve the page, `v2/showcases/list`, and `v2/showcases/ID?page=N`."""
    match request.parts:
        case [""] | ["category", _]:
            return DemoReply(page(world.step))
        case ["v2", "showcases", "list"]:
            return json_reply(listing())
        case ["v2", "showcases", id_] if id_ in SHOWCASES:
            number = request.query.get("page", "1")
            if number.isdecimal() and 1 <= int(number) <= pages(id_):
                return json_reply(document(id_, int(number), world.step))
    return None


SOURCE = DemoSource("samokat", "SK", respond)
