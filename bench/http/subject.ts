/** One of the servers the HTTP bench compares, alone in its process: `subject.ts <name> <port>`. */
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

const [name = '', port = ''] = Deno.args
const fetch = subjects[name]
if (fetch === undefined) {
  throw new TypeError(`There is no subject "${name}": ${Object.keys(subjects).join(', ')}`)
}
Deno.serve({ hostname: '127.0.0.1', port: Number(port), onListen: () => {} }, (request) => fetch(request))
