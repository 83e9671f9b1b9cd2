-- Return the other scopes of a provider that write or wrote some kinds, a row for each kind.
-- Parameters: provider, scheme and operation (the identity of the scope), kinds.
--
-- Two operations that wrote a kind at the same time are siblings: each answers for its own records.
-- An operation that wrote the kind at other times was renamed, or has handed the kind on. A removed
-- operation stays a sibling if it has a successor, an operation that writes the kind and began
-- later; without a successor it is abandoned, and all writers of the kind answer for its records.
WITH writer AS (
    SELECT k.name AS kind, v.name AS scheme, w.name AS operation, k.created_at AS since,
        coalesce(v.retired_at, 'infinity') AS until, v.retired_at IS NULL AS is_current
    FROM catlog.kind k
    JOIN catlog.catalog_scheme_operation w ON w.id = k.operation_id
    JOIN catlog.catalog_scheme v ON v.id = w.scheme_id
    WHERE v.provider_id = :provider AND k.name = ANY(CAST(:kinds AS text[]))
),
known AS (
    SELECT kind, scheme, operation, bool_or(is_current) AS is_current
    FROM writer GROUP BY kind, scheme, operation
),
-- Pairs of operations that wrote a kind at the same time.
together AS (
    SELECT DISTINCT a.kind, a.scheme, a.operation, b.scheme AS with_scheme,
        b.operation AS with_operation
    FROM writer a
    JOIN writer b ON b.kind = a.kind AND (b.scheme, b.operation) <> (a.scheme, a.operation)
        AND a.since < b.until AND b.since < a.until
),
judged AS (
    SELECT other.*,
        EXISTS (
            SELECT 1 FROM together t
            WHERE (t.kind, t.scheme, t.operation, t.with_scheme, t.with_operation)
                = (other.kind, other.scheme, other.operation, :scheme, :operation)) AS is_together,
        EXISTS (
            SELECT 1 FROM known heir
            WHERE heir.kind = other.kind AND heir.is_current AND NOT EXISTS (
                SELECT 1 FROM together t
                WHERE (t.kind, t.scheme, t.operation, t.with_scheme, t.with_operation)
                    = (other.kind, other.scheme, other.operation, heir.scheme, heir.operation)))
            AS has_successor
    FROM known other WHERE (other.scheme, other.operation) <> (:scheme, :operation)
)
SELECT s.number, s.high_water_mark, o.kind,
    o.is_together AND (o.is_current OR o.has_successor) AS is_sibling,
    o.is_together AND NOT o.is_current AND NOT o.has_successor AS is_abandoned
FROM judged o
JOIN catlog.scope s ON s.provider_id = :provider AND s.scheme_name = o.scheme
    AND s.operation_name = o.operation
ORDER BY s.number, o.kind
