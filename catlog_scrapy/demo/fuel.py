"""Fuel network: documents of stations, prices, fuel types and services.

Known of the original: the paths and forms of stations and prices, the delay of four seconds, the
ids, addresses and coordinates of stations 1, 2 and 4, the address of station 3, and the prices of
stations 1 and 4. Fuel types and services have ids, names and icons, which the owner kept by hand.

Invented: the documents `fuel-types` and `services`, all pictures and their relative links, the
coordinates of station 3 (Innopolis), all numbers and services, the empty prices of stations 2 and
3, and every change. The second change removes station 3, and the fourth brings it back.
"""

from collections.abc import Sequence
from typing import Any

from catlog_scrapy.demo.pictures import picture
from catlog_scrapy.demo.source import DemoReply, DemoRequest, DemoSource, World, json_reply

FUELS = ("АИ-95", "АИ-98", "АИ-95+")
PRICES = {1: ("RUB", (100, 120, 110)), 2: None, 3: None, 4: ("RSD", (200, 240, 220))}
STATIONS: tuple[tuple[int, list[float], str, str, list[str]], ...] = (
    (1, [55.797817, 49.130638], "101", "Казань, ул. Федосеевская 36", ["Кафе", "Автомойка"]),
    (2, [55.794126, 49.120886], "102", "Казань, ул. Дзержинского", ["Магазин"]),
    (3, [55.7520, 48.7446], "103", "Иннополис, ул. Университетская 1", ["Зарядка", "Кафе"]),
    (4, [44.816068, 20.460431], "401", "Белград, Трг републике 3", []),
)
CHANGING_SERVICE = "Подкачка шин"
SERVICES = ("Кафе", "Автомойка", "Магазин", "Зарядка", CHANGING_SERVICE)
# The missing station, and the numbers of changes after which it is missing.
AWAY, WHILE_AWAY = 3, (2, 3)
PICTURES = {
    *(f"images/{station[2]}-{n}.png" for station in STATIONS for n in (1, 2)),
    *(f"images/fuel-{n}.png" for n in range(1, len(FUELS) + 1)),
    *(f"images/service-{n}.png" for n in range(1, len(SERVICES) + 1)),
}


def stations(step: int) -> list[dict[str, Any]]:
    """Return the stations after *step* changes. Each change alters the services of a station."""
    return [
        {
            "id": id_,
            "coordinates": coordinates,
            "number": number,
            "address": address,
            "image_urls": [f"images/{number}-{n}.png" for n in (1, 2)],
            "additional_services": services + [CHANGING_SERVICE] * _touched(step, id_, 4),
        }
        for id_, coordinates, number, address, services in STATIONS
        if id_ != AWAY or step not in WHILE_AWAY
    ]


def prices(step: int) -> list[dict[str, Any]]:
    """Return the prices after *step* changes. Each change raises the price of a fuel."""
    return [
        {
            "id": id_,
            "fuel_prices": [
                {"name": fuel, "price": price + (step + 3 - turn) // 3, "currency": priced[0]}
                for turn, (fuel, price) in enumerate(zip(FUELS, priced[1], strict=True), 1)
            ]
            if priced
            else [],
        }
        for id_, priced in PRICES.items()
    ]


def references(names: Sequence[str], picture: str) -> list[dict[str, Any]]:
    """Return reference entries with these *names*, and with ids and icons."""
    return [
        {"id": id_, "name": name, "icon": f"images/{picture}-{id_}.png"}
        for id_, name in enumerate(names, 1)
    ]


def _touched(step: int, turn: int, turns: int) -> bool:
    """Return whether item *turn* of *turns* differs from step 0: each touch reverses it."""
    return (step + turns - turn) // turns % 2 == 1


def respond(request: DemoRequest, world: World) -> DemoReply | None:
    """Serve `fuel-stations` with a delay, `fuel-prices`, reference lists and pictures."""
    match request.path:
        case "fuel-stations":
            world.wait(world.fuel_delay)
            return json_reply(stations(world.step))
        case "fuel-prices":
            return json_reply(prices(world.step))
        case "fuel-types":
            return json_reply(references(FUELS, "fuel"))
        case "services":
            return json_reply(references(SERVICES, "service"))
        case path if path in PICTURES:
            return picture(path)
    return None


SOURCE = DemoSource("fuel", "tatneft", respond)
