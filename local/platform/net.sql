-- What: a stand-in for pg_net: net.http_get(), net.http_post(), net.http_delete(), answers in net._http_response.
-- Why: pg_net has no package outside Supabase; cron jobs and triggers call functions through it. Here the gateway sends.
-- Who: `postgres` and the API roles may queue a request; `postgres` and `service_role` may read the answers.

create schema if not exists net;

do $$
begin
    if pg_catalog.to_regtype('net.http_method') is null then
        create domain net.http_method as text
            constraint http_method_is_known check (pg_catalog.lower(value) in ('get', 'post', 'delete'));
    end if;
end;
$$;

-- Unlogged, as in pg_net: a crash of the server loses what is queued. A request is a doorbell, no transport.
create unlogged table if not exists net.http_request_queue (
    id bigserial not null,
    method net.http_method not null,
    url text not null,
    headers jsonb,
    body bytea,
    timeout_milliseconds integer not null
);

create unlogged table if not exists net._http_response (
    id bigint,
    status_code integer,
    content_type text,
    headers jsonb,
    content text,
    timed_out boolean,
    error_msg text,
    created timestamptz not null default pg_catalog.now()
);

create index if not exists http_request_queue_id_idx on net.http_request_queue (id);

create index if not exists http_response_id_idx on net._http_response (id);

create index if not exists http_response_created_idx on net._http_response (created);

-- Rings the sender's bell. Notifications leave at commit, so a rolled back transaction sends nothing.
create or replace function net.wake()
returns void
language sql
volatile
set search_path = ''
as $$
    select pg_catalog.pg_notify('holdfast_net', '')
$$;

create or replace function net._wake_on_insert()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
    perform net.wake();
    return null;
end;
$$;

create or replace trigger wake_sender
    after insert on net.http_request_queue
    for each statement
    execute function net._wake_on_insert();

-- All bytes but those that a URL takes literally, as `%xx`.
create or replace function net._urlencode_string(string varchar)
returns text
language sql
immutable
strict
set search_path = ''
as $$
    select coalesce(
        pg_catalog.string_agg(
            case
                when letter ~ '^[A-Za-z0-9_.~-]$' then letter
                else pg_catalog.upper(
                    pg_catalog.regexp_replace(
                        pg_catalog.encode(pg_catalog.convert_to(letter, 'UTF8'), 'hex'), '(..)', '%\1', 'g'
                    )
                )
            end,
            '' order by place
        ),
        ''
    )
    from pg_catalog.regexp_split_to_table(string, '') with ordinality as piece (letter, place)
$$;

-- Parameters join the query that the URL has, before its fragment.
create or replace function net._encode_url_with_params_array(url text, params_array text[])
returns text
language sql
immutable
strict
set search_path = ''
as $$
    select case
        when pg_catalog.cardinality(params_array) = 0 then url
        else base
            || case when pg_catalog.strpos(base, '?') > 0 then '&' else '?' end
            || pg_catalog.array_to_string(params_array, '&')
            || pg_catalog.substr(url, pg_catalog.length(base) + 1)
    end
    from pg_catalog.split_part(url, '#', 1) as base
$$;

create or replace function net._queue(
    p_method text,
    p_url text,
    p_params jsonb,
    p_headers jsonb,
    p_body bytea,
    p_timeout_milliseconds integer
)
returns bigint
language sql
volatile
set search_path = ''
as $$
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
    select
        p_method,
        net._encode_url_with_params_array(
            p_url,
            coalesce(
                pg_catalog.array_agg(net._urlencode_string(key) || '=' || net._urlencode_string(value))
                    filter (where key is not null),
                '{}'
            )
        ),
        p_headers,
        p_body,
        p_timeout_milliseconds
    from (values (true)) as one_row (present)
    left join pg_catalog.jsonb_each_text(coalesce(p_params, '{}'::pg_catalog.jsonb)) as param (key, value) on true
    returning id
$$;

-- The interface, with pg_net's names of parameters. All run as their owner: the queue itself is closed to callers.
create or replace function net.http_get(
    url text,
    params jsonb default '{}'::jsonb,
    headers jsonb default '{}'::jsonb,
    timeout_milliseconds integer default 5000
)
returns bigint
language sql
volatile
security definer
set search_path = ''
as $$
    select net._queue('GET', url, params, headers, null, timeout_milliseconds)
$$;

create or replace function net.http_post(
    url text,
    body jsonb default '{}'::jsonb,
    params jsonb default '{}'::jsonb,
    headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
    timeout_milliseconds integer default 5000
)
returns bigint
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
    v_content_type text;
begin
    select header.value
    into v_content_type
    from pg_catalog.jsonb_each_text(coalesce(http_post.headers, '{}'::pg_catalog.jsonb)) as header (name, value)
    where pg_catalog.lower(header.name) = 'content-type'
    limit 1;

    if v_content_type <> 'application/json' then
        raise exception 'Content-Type header must be "application/json"';
    end if;

    return net._queue(
        'POST',
        http_post.url,
        http_post.params,
        case
            when v_content_type is null
                then coalesce(http_post.headers, '{}'::pg_catalog.jsonb)
                    || '{"Content-Type": "application/json"}'::pg_catalog.jsonb
            else http_post.headers
        end,
        pg_catalog.convert_to(http_post.body::text, 'UTF8'),
        http_post.timeout_milliseconds
    );
end;
$$;

create or replace function net.http_delete(
    url text,
    params jsonb default '{}'::jsonb,
    headers jsonb default '{}'::jsonb,
    timeout_milliseconds integer default 5000,
    body jsonb default null
)
returns bigint
language sql
volatile
security definer
set search_path = ''
as $$
    select net._queue(
        'DELETE', url, params, headers, pg_catalog.convert_to(body::text, 'UTF8'), timeout_milliseconds
    )
$$;

do $$
begin
    if pg_catalog.to_regtype('net.request_status') is null then
        create type net.request_status as enum ('PENDING', 'SUCCESS', 'ERROR');
        create type net.http_response as (status_code integer, headers jsonb, body text);
        create type net.http_response_result as (
            status net.request_status,
            message text,
            response net.http_response
        );
    end if;
end;
$$;

-- The answer to a request, if it is there. Waiting for one inside a transaction is not offered: the request leaves
-- only when that transaction has ended.
create or replace function net._http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language plpgsql
volatile
set search_path = ''
as $$
declare
    v_answer net._http_response;
begin
    if not async then
        raise exception 'net._http_collect_response: async := false is not supported by the local stand-in of pg_net';
    end if;

    select answer.*
    into v_answer
    from net._http_response as answer
    where answer.id = request_id;

    if not found or v_answer.error_msg is not null then
        return row(
            'ERROR'::net.request_status,
            coalesce(v_answer.error_msg, 'request matching request_id not found'),
            null
        )::net.http_response_result;
    end if;
    return row(
        'SUCCESS'::net.request_status,
        'ok',
        row(v_answer.status_code, v_answer.headers, v_answer.content)::net.http_response
    )::net.http_response_result;
end;
$$;

create or replace function net.http_collect_response(request_id bigint, async boolean default true)
returns net.http_response_result
language sql
volatile
set search_path = ''
as $$
    select net._http_collect_response(request_id, async)
$$;

revoke all on all functions in schema net from public;

grant usage on schema net to postgres, anon, authenticated, service_role;

grant execute on all functions in schema net to postgres;

grant execute on function net.http_get(text, jsonb, jsonb, integer) to anon, authenticated, service_role;

grant execute on function net.http_post(text, jsonb, jsonb, jsonb, integer) to anon, authenticated, service_role;

grant execute on function net.http_delete(text, jsonb, jsonb, integer, jsonb) to anon, authenticated, service_role;

grant all on all tables in schema net to postgres;

grant all on all sequences in schema net to postgres;

grant select on net._http_response to service_role;

select pg_temp.stand_in_extension('pg_net', '0.20.3', 'extensions', 'net');
