-- A station and what fuel costs there. Collation "C": the order must not depend on the server.
SELECT
    stations.id,
    stations.coordinate_x,
    stations.coordinate_y,
    stations.number,
    stations.address,
    stations.image_urls,
    stations.services,
    coalesce(prices.fuels, '[]') AS fuels
FROM public.stations
CROSS JOIN LATERAL (
    SELECT jsonb_agg(
        jsonb_build_object('fuel', fuel, 'price', price, 'currency', currency)
        ORDER BY fuel COLLATE "C"
    ) AS fuels
    FROM public.fuel_prices
    WHERE fuel_prices.station_id = stations.id
) AS prices
