-- Stations for clients, with the prices and services of all sources.
-- Prices and stations refer to fuels and services by name. An unlisted name has no id.
-- Collation "C" makes the order independent of the server.
SELECT
    stations.id,
    stations.coordinate_x,
    stations.coordinate_y,
    stations.number,
    stations.address,
    stations.images AS image_urls,
    coalesce(prices.fuels, '[]') AS fuels,
    coalesce(offers.services, '[]') AS services
FROM public.stations
CROSS JOIN LATERAL (
    SELECT jsonb_agg(
        jsonb_build_object(
            'price', price,
            'currency', currency,
            'fuel_type', jsonb_build_object('id', type.id, 'name', fuel, 'icon', type.icon)
        ) ORDER BY fuel COLLATE "C"
    ) AS fuels
    FROM public.fuel_prices
    LEFT JOIN LATERAL (
        SELECT id, icon FROM public.fuel_types WHERE name = fuel ORDER BY id LIMIT 1
    ) AS type ON true
    WHERE fuel_prices.station_id = stations.id
) AS prices
CROSS JOIN LATERAL (
    SELECT jsonb_agg(
        jsonb_build_object('id', known.id, 'name', offered.name, 'icon', known.icon)
        ORDER BY offered.place
    ) AS services
    FROM jsonb_array_elements_text(stations.services) WITH ORDINALITY AS offered (name, place)
    LEFT JOIN LATERAL (
        SELECT id, icon FROM public.fuel_services
        WHERE fuel_services.name = offered.name ORDER BY id LIMIT 1
    ) AS known ON true
) AS offers
