-- What: what one change did to each column, and what became of a row between two points in time.
-- Why: what people want of a history is mostly its beginning and its end, side by side.
-- Who: admins by their JWT and `postgres`, as for all reading of the trail.

create or replace function audit.diff(p_change_id bigint)
returns table (column_name text, before jsonb, after jsonb)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_details jsonb;
begin
    perform audit.require_reader();
    select c.details into v_details
    from audit.database_changes as c
    where c.id = p_change_id;
    if not found then
        raise exception 'Cannot show change %: there is none with this id', p_change_id
            using errcode = 'PT404', hint = 'Changes leave the trail when audit.settings.retention is over.';
    end if;
    return query
    select v.column_name, v.before, v.after
    from audit.changed_values(v_details) as v
    order by v.column_name;
    perform audit.note_reading('diff', jsonb_build_object('id', p_change_id));
end;
$$;

comment on function audit.diff(bigint) is
    'What a change did to each column. Before is null (of SQL) where there was no row, ''null'' where the column was null.';


create or replace function audit.diff(
    p_table text,
    p_key text,
    p_from timestamptz,
    p_to timestamptz default clock_timestamp()
)
returns table (column_name text, before jsonb, after jsonb)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids bigint[];
begin
    perform audit.require_reader();
    v_ids := audit.history_ids(p_table, p_key);
    return query
    with history as (
        select c.id, c.occurred_at, c.operation, c.details
        from audit.database_changes as c
        where c.id = any (v_ids)
    ),
    mentioned as (
        select h.id, h.occurred_at, v.column_name, v.before, v.after
        from history as h
        cross join lateral audit.changed_values(h.details) as v
        union all
        -- A TRUNCATE tells no values: it ends all columns that were known.
        select h.id, h.occurred_at, known.name, known.value, null
        from history as h
        cross join lateral (
            select distinct on (v.column_name) v.column_name, v.after
            from history as earlier
            cross join lateral audit.changed_values(earlier.details) as v
            where earlier.id < h.id
            order by v.column_name, earlier.id desc
        ) as known (name, value)
        where h.operation = 'TRUNCATE'
    ),
    ends as (
        select m.column_name as name,
            (array_agg(m.before order by m.id))[1] as first_value,
            (array_agg(m.after order by m.id desc))[1] as last_value
        from mentioned as m
        where m.occurred_at > p_from
        and m.occurred_at <= p_to
        group by m.column_name
    )
    select e.name, e.first_value, e.last_value
    from ends as e
    where e.first_value is distinct from e.last_value
        or e.first_value = '"***"'
    order by e.name;
    perform audit.note_reading('diff', jsonb_build_object(
        'table', p_table, 'key', left(p_key, 4000), 'from', p_from, 'to', p_to
    ));
end;
$$;

comment on function audit.diff(text, text, timestamptz, timestamptz) is
    'The row as it was at p_from beside what it was at p_to: the columns that differ. Null (of SQL) where there was no '
    'row. A masked column is listed when it was written in between.';


create or replace function audit.diff(
    p_table regclass,
    p_key anyelement,
    p_from timestamptz,
    p_to timestamptz default clock_timestamp()
)
returns table (column_name text, before jsonb, after jsonb)
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select d.column_name, d.before, d.after
    from audit.diff(p_table::text, to_jsonb(p_key) #>> '{}', p_from, p_to) as d
$$;

comment on function audit.diff(regclass, anyelement, timestamptz, timestamptz) is
    'As diff(text, text, …), for a key of any type.';


grant execute
    on function
        audit.diff(bigint),
        audit.diff(text, text, timestamptz, timestamptz),
        audit.diff(regclass, anyelement, timestamptz, timestamptz)
    to authenticated;
