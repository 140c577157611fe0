-- What: finding changes by table, key, person, request, action and time, newest first, page by page.
-- Why: a month has millions of changes; the one in question is found by an index, and pages stay put while rows arrive.
-- Who: admins by their JWT, through the function `admin`; `postgres` by SQL.

-- PT400 becomes status 400, its detail the list of problems that the API gives for every bad request.
create or replace function audit.refuse_filter(p_filter text, p_message text)
returns void
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'The request is not valid: query.%: %', p_filter, p_message
        using errcode = 'PT400',
            detail = jsonb_build_array(jsonb_build_object('in', 'query', 'path', p_filter, 'message', p_message))::text;
end;
$$;

comment on function audit.refuse_filter(text, text) is 'Raises PT400 that names a filter and what is wrong with it.';


create or replace function audit.filter_time(p_filters jsonb, p_filter text)
returns timestamptz
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
begin
    return (p_filters ->> p_filter)::timestamptz;
exception
    when invalid_datetime_format or datetime_field_overflow or invalid_time_zone_displacement_value then
        perform audit.refuse_filter(p_filter, 'not a time');
        return null;
end;
$$;

comment on function audit.filter_time(jsonb, text) is 'The time that a filter names, in UTC where it says no zone; PT400 for what is none.';


create or replace function audit.check_filters(p_filters jsonb)
returns void
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text;
    v_value jsonb;
begin
    for v_name, v_value in select e.key, e.value from jsonb_each(p_filters) as e loop
        if v_name <> all ('{table,key,operation,actor,requestId,action,from,to}') then
            perform audit.refuse_filter(left(v_name, 50), 'there is no such filter');
        elsif jsonb_typeof(v_value) <> 'string' or char_length(v_value #>> '{}') not between 1 and 4000 then
            perform audit.refuse_filter(v_name, 'must be a text of 1 to 4000 characters');
        end if;
    end loop;
    if p_filters ->> 'operation' not in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'DDL', 'EVENT') then
        perform audit.refuse_filter('operation', 'must be INSERT, UPDATE, DELETE, TRUNCATE, DDL or EVENT');
    end if;
    if audit.filter_time(p_filters, 'from') >= audit.filter_time(p_filters, 'to') then
        perform audit.refuse_filter('to', 'must be later than from');
    end if;
end;
$$;

comment on function audit.check_filters(jsonb) is 'Raises PT400 for the first filter that is none, or has no sensible value.';


create or replace function audit.users_named(p_actor text)
returns uuid[]
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids uuid[];
begin
    if p_actor ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        return array[p_actor::uuid];
    elsif p_actor is null or p_actor not like '%@%' then
        return null;
    end if;

    v_ids := array(select u.id from auth.users as u where lower(u.email) = lower(p_actor));
    if v_ids = '{}' then
        -- An empty answer would read as: they have done nothing.
        perform audit.refuse_filter('actor', 'no user has this e-mail now; one who was deleted is found by their id');
    end if;
    return v_ids;
end;
$$;

comment on function audit.users_named(text) is
    'Ids of the users with this id or e-mail; null for a text that is neither, PT400 for an e-mail nobody has.';


-- The ids of the newest changes below p_before that the filters let through. Newest first means by id, so a page ends
-- at an id and the next begins there, whatever is written meanwhile.
--
-- The planner cannot know that ids and time grow together. Left alone it walks the ids of every month in search of a
-- day in spring, or reads a whole quarter for a page of fifty. So the months are asked one by one, newest first, until
-- the page is full. Ids are given out a moment before the time is taken, so some rows of older months may have ids
-- within the page. They are few, and are added last.
create or replace function audit.find_change_ids(p_filters jsonb, p_limit integer, p_before bigint)
returns bigint[]
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
    v_users uuid[] := audit.users_named(p_filters ->> 'actor');
    v_from timestamptz := coalesce(audit.filter_time(p_filters, 'from'), '-infinity');
    v_to timestamptz := coalesce(audit.filter_time(p_filters, 'to'), 'infinity');
    v_conditions text := concat_ws(
        ' and ',
        'c.id < $1 and c.id > $2 and c.occurred_at >= $3 and c.occurred_at < $4',
        case when p_filters ? 'table' then 'c.object_identity = $6 ->> ''table''' end,
        case when p_filters ? 'key' then 'c.primary_key = $6 ->> ''key''' end,
        case when p_filters ? 'operation' then 'c.operation = $6 ->> ''operation''' end,
        case when p_filters ? 'requestId' then 'c.request_id = $6 ->> ''requestId''' end,
        case when p_filters ? 'action'
            then 'c.operation = ''EVENT'' and c.details #>> ''{event,action}'' = $6 ->> ''action''' end,
        case when v_users is not null then 'c.actor_id = any ($7)' end,
        case when p_filters ? 'actor' and v_users is null
            then 'c.actor_id is null and coalesce(c.details ->> ''actor'', c.actor_role) = $6 ->> ''actor''' end
    );
    v_by_id text := format('select array(select c.id from audit.database_changes as c where %s', v_conditions)
        || ' order by c.id desc limit $5)';
    -- Adding zero keeps the planner from walking the ids: all that match are read by another index, then sorted.
    v_sorted text := replace(v_by_id, 'order by c.id ', 'order by c.id + 0 ');
    v_before bigint := coalesce(p_before, 9223372036854775807);
    v_oldest timestamptz := (select date_trunc('month', now() - s.retention - interval '1 month') from audit.settings as s);
    v_month timestamptz := date_trunc('month', least(v_to, now()));
    v_start timestamptz;
    v_end timestamptz := 'infinity'::timestamptz;
    v_ids bigint[] := '{}'::bigint[];
    v_found bigint[];
    v_skips boolean;
begin
    if p_filters ?| '{key,requestId}' then
        execute v_sorted into v_ids using v_before, 0::bigint, v_from, v_to, p_limit, p_filters, v_users;
        return v_ids;
    end if;

    loop
        v_start := case when v_month <= v_oldest then '-infinity' else v_month end;
        -- A window that ends in the midst of a month lies behind all that is younger: reading it whole may be less.
        v_skips := case when p_before is null and isfinite(v_to)
            then least(v_end, now()) - v_to > v_to - greatest(v_start, v_from, v_oldest) end;
        execute case when v_skips then v_sorted else v_by_id end
            into v_found
            using v_before, 0::bigint, greatest(v_start, v_from), least(v_end, v_to),
                p_limit - cardinality(v_ids), p_filters, v_users;
        v_ids := v_ids || v_found;
        exit when cardinality(v_ids) >= p_limit or v_start <= v_from;
        v_end := v_start;
        v_month := v_month - interval '1 month';
    end loop;

    if cardinality(v_ids) >= p_limit then
        execute case when p_before is null and isfinite(v_to) then v_sorted else v_by_id end
            into v_found
            using v_before, (select min(i.id) from unnest(v_ids) as i (id)), v_from, least(v_end, v_to),
                p_limit, p_filters, v_users;
        v_ids := array(select distinct i.id from unnest(v_ids || v_found) as i (id) order by i.id desc limit p_limit);
    end if;
    return v_ids;
end;
$$;

comment on function audit.find_change_ids(jsonb, integer, bigint) is
    'Ids of the newest changes that the filters let through, below p_before where it is given; at most p_limit.';


create or replace function audit.find_changes(
    p_filters jsonb default '{}',
    p_limit integer default 50,
    p_before bigint default null
)
returns setof audit.changes
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids bigint[];
begin
    perform audit.require_reader();
    perform audit.check_filters(p_filters);
    if p_limit is null or p_limit not between 1 and 10000 then
        perform audit.refuse_filter('limit', 'must be from 1 to 10000');
    end if;

    v_ids := audit.find_change_ids(p_filters, p_limit, p_before);
    return query
    select c.*
    from audit.changes as c
    where c.id = any (v_ids)
    order by c.id desc;

    perform audit.note_reading('find_changes', jsonb_build_object('filters', p_filters, 'before', p_before));
end;
$$;

comment on function audit.find_changes(jsonb, integer, bigint) is
    'The newest changes that all filters let through: table (as public.orders), key, operation, actor (id, e-mail, or '
    'the role where nobody was signed in), requestId, action, from (inclusive), to (exclusive). p_before: the id at '
    'which the page before ended. A read by an admin is recorded as audit.read.';


create or replace function audit.by_actor(
    p_actor text,
    p_from timestamptz default null,
    p_to timestamptz default null,
    p_limit integer default 100
)
returns setof audit.changes
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select c.*
    from audit.find_changes(
        jsonb_strip_nulls(jsonb_build_object('actor', coalesce(p_actor, ''), 'from', p_from, 'to', p_to)),
        p_limit
    ) as c
$$;

comment on function audit.by_actor(text, timestamptz, timestamptz, integer) is
    'What somebody did, newest first: by id, by e-mail, or by role for changes that no signed-in user made.';


create or replace function audit.by_actor(
    p_actor uuid,
    p_from timestamptz default null,
    p_to timestamptz default null,
    p_limit integer default 100
)
returns setof audit.changes
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select c.*
    from audit.by_actor(p_actor::text, p_from, p_to, p_limit) as c
$$;

comment on function audit.by_actor(uuid, timestamptz, timestamptz, integer) is 'As by_actor(text, …), by id.';


-- The functions that do the work need the rights of the trail's owner; only find_changes lends them, to readers.
grant execute
    on function
        audit.find_changes(jsonb, integer, bigint),
        audit.by_actor(text, timestamptz, timestamptz, integer),
        audit.by_actor(uuid, timestamptz, timestamptz, integer)
    to authenticated;
