"""The two documents of the fuel network: its stations and their prices.

Known of the original: paths and shapes of both documents, the first one's four seconds, the ids,
addresses and coordinates of stations 1, 2 and 4, the address of station 3, the prices of stations
1 and 4. Invented: the coordinates of station 3 (Innopolis), all numbers, images and services, that
stations 2 and 3 are listed with no prices, and every change.
"""

from typing import Any

from catlog_scrapy.demo.source import Answer, Request, Source, World, json_answer

FUELS = ("АИ-95", "АИ-98", "АИ-95+")
PRICES = {1: ("RUB", (100, 120, 110)), 2: None, 3: None, 4: ("RSD", (200, 240, 220))}
STATIONS: tuple[tuple[int, list[float], str, str, list[str]], ...] = (
    (1, [55.797817, 49.130638], "101", "Казань, ул. Федосеевская 36", ["Кафе", "Автомойка"]),
    (2, [55.794126, 49.120886], "102", "Казань, ул. Дзержинского", ["Магазин"]),
    (3, [55.7520, 48.7446], "103", "Иннополис, ул. Университетская 1", ["Зарядка", "Кафе"]),
    (4, [44.816068, 20.460431], "401", "Белград, Трг републике 3", []),
)
CHANGING_SERVICE = "Подкачка шин"


def stations(step: int) -> list[dict[str, Any]]:
    """The stations after *step* changes; each change touches the services of one, in turn."""
    return [
        {
            "id": id_,
            "coordinates": coordinates,
            "number": number,
            "address": address,
            "image_urls": [f"https://fuel.example/images/{number}-{n}.jpg" for n in (1, 2)],
            "additional_services": services + [CHANGING_SERVICE] * _touched(step, id_, 4),
        }
        for id_, coordinates, number, address, services in STATIONS
    ]


def prices(step: int) -> list[dict[str, Any]]:
    """The prices after *step* changes; each raises one fuel of every priced station, in turn."""
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


def _touched(step: int, turn: int, turns: int) -> bool:
    """Whether the *turn*-th of *turns* differs from its beginning: every touch reverses it."""
    return (step + turns - turn) // turns % 2 == 1


def answer(request: Request, world: World) -> Answer | None:
    """`fuel-stations`, which takes its time, and `fuel-prices`."""
    match request.path:
        case "fuel-stations":
            world.wait(world.fuel_delay)
            return json_answer(stations(world.step))
        case "fuel-prices":
            return json_answer(prices(world.step))
    return None


SOURCE = Source("fuel", "tatneft", answer)
