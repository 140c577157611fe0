/**
 * One of the servers that the HTTP bench compares, alone in its process: `subject.ts <name>`. It says its port on
 * standard error; standard output is its log.
 */
import { Hono } from 'hono'
import { z } from 'zod'
import { defineApi, route } from '../../supabase/functions/_shared/http/api.ts'

const answer = { ok: true }

const subjects: Record<string, (request: Request) => Response | Promise<Response>> = {
  holdfast: defineApi({
    name: 'bench',
    title: 'Bench',
    routes: [
      route({
        method: 'GET',
        path: '/',
        auth: 'none',
        summary: 'Nothing',
        response: z.object({ ok: z.boolean() }),
        handler: () => ({ data: answer }),
      }),
    ],
  }).fetch,
  hono: new Hono().get('/bench', (context) => context.json(answer)).fetch,
  deno: () => Response.json(answer),
}

const [name = ''] = Deno.args
const fetch = subjects[name]
if (fetch === undefined) {
  throw new TypeError(`There is no subject "${name}": ${Object.keys(subjects).join(', ')}`)
}

function sayPort({ port }: Deno.NetAddr): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${port}\n`))
}

Deno.serve({ hostname: '127.0.0.1', port: 0, onListen: sayPort }, (request) => fetch(request))
