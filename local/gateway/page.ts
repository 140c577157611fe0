/** The page at `/`: what runs, where, and how it is. */
import type { FunctionConfig } from '../project.ts'

export interface Health {
  name: string
  healthy: boolean
  detail: string
}

export interface PageContent {
  url: string
  databaseUrl: string
  paymentsUrl: string
  publishableKey: string
  functions: { config: FunctionConfig; isolates: number }[]
  health: Health[]
}

/** Plain HTML: no script, no style sheet of another origin. */
export function renderPage(content: PageContent): Response {
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Holdfast, local stack</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1d2520 }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d8dedb; overflow-wrap: anywhere }
th { white-space: nowrap; font-weight: 600 }
code { font-size: .9em }
</style>
</head>
<body>
<h1>Holdfast, local stack</h1>
<h2>Addresses</h2>
${table(addresses(content))}
<h2>Health</h2>
${
    table(
      content.health.map((
        one,
      ) => [text(one.name), `${one.healthy ? 'up' : '<strong>down</strong>'}, ${text(one.detail)}`]),
    )
  }
<h2>Functions</h2>
${
    content.functions.length === 0
      ? '<p>None below <code>supabase/functions</code>.</p>'
      : table(functionRows(content))
  }
</body>
</html>
`
  return new Response(html, {
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
      'x-content-type-options': 'nosniff',
    },
  })
}

function addresses({ url, databaseUrl, paymentsUrl, publishableKey }: PageContent): [string, string][] {
  return [
    ['API', code(url)],
    ['REST', code(`${url}/rest/v1`)],
    ['Auth', code(`${url}/auth/v1`)],
    ['Functions', code(`${url}/functions/v1`)],
    ['Database', code(databaseUrl)],
    ['Payments stand-in', link(`${paymentsUrl}/charges`)],
    ['Publishable key', code(publishableKey)],
  ]
}

function functionRows({ url, functions }: PageContent): [string, string][] {
  return functions.map(({ config, isolates }) => [
    link(`${url}/functions/v1/${config.name}`, config.name),
    [
      config.enabled ? `${isolates} isolate${isolates === 1 ? '' : 's'} running` : 'disabled',
      config.verifyJwt ? 'JWT checked by the platform' : 'checks its callers itself',
    ].join(', '),
  ])
}

function table(rows: [string, string][]): string {
  return `<table>\n${
    rows.map(([name, value]) => `<tr><th>${name}</th><td>${value}</td></tr>`).join('\n')
  }\n</table>`
}

function code(value: string): string {
  return `<code>${text(value)}</code>`
}

function link(address: string, label = address): string {
  return `<a href="${text(address)}">${text(label)}</a>`
}

function text(value: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  }
  return value.replace(/[&<>"']/g, (character) => entities[character] ?? character)
}
